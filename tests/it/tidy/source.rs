//! Reads the source crudely: words, paths and what they begin with, without a parser.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A source file: its path from the root, with `/`, and its text.
pub struct Source {
    pub path: String,
    pub text: String,
}

/// The Rust files below these folders.
pub fn sources(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(Source {
                    path: from_root(&path),
                    text: std::fs::read_to_string(&path).unwrap(),
                });
            }
        }
    }
    assert!(!found.is_empty(), "nothing found in {folders:?}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn from_root(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap();
    let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
    parts.join("/")
}

impl Source {
    /// The code that ships: without comments, texts and unit tests.
    pub fn code(&self) -> String {
        if self.path.ends_with("/tests.rs") {
            return String::new();
        }
        without_unit_tests(&stripped(&self.text))
    }

    /// The modules from the crate's root down to this file.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.strip_prefix("src/").unwrap();
        let mut modules: Vec<_> = path.strip_suffix(".rs").unwrap().split('/').collect();
        if matches!(modules.last(), Some(&"mod" | &"lib")) {
            modules.pop();
        }
        modules
    }

    /// The module below the crate's root; `None` for the root itself.
    pub fn module(&self) -> Option<&str> {
        self.modules().first().copied()
    }
}

/// Blanks comments, string and character literals; lines stay where they are.
pub fn stripped(text: &str) -> String {
    let mut left = text;
    let mut code = String::with_capacity(text.len());
    while let Some(first) = left.chars().next() {
        let in_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let raw = left.trim_start_matches('r').trim_start_matches('#');
        let hashes = left.len() - raw.len();
        let length = if left.starts_with("//") {
            left.find('\n').unwrap_or(left.len())
        } else if left.starts_with("/*") {
            left.find("*/").map_or(left.len(), |end| end + 2)
        } else if first == 'r' && !in_word && raw.starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes - 1));
            raw[1..]
                .find(&end)
                .map_or(left.len(), |at| hashes + 1 + at + end.len())
        } else if first == '"' {
            literal(left, '"')
        } else if first == '\''
            && (left[1..].starts_with('\\') || left.chars().nth(2) == Some('\''))
        {
            literal(left, '\'')
        } else {
            code.push(first);
            left = &left[first.len_utf8()..];
            continue;
        };
        code.push(' ');
        code.extend(left[..length].chars().filter(|c| *c == '\n'));
        left = &left[length..];
    }
    code
}

/// The length of a literal that ends with the quote it begins with.
fn literal(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Blanks every item that is compiled for unit tests only.
fn without_unit_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut left = code;
    while let Some(at) = left.find(MARK) {
        kept.push_str(&left[..at]);
        let item = &left[at..];
        let mut depth = 0_usize;
        let mut end = item.len();
        for (at, c) in item.char_indices().skip(MARK.len()) {
            match c {
                '{' => depth += 1,
                '}' => depth = depth.saturating_sub(1),
                ';' => {}
                _ => continue,
            }
            if depth == 0 {
                end = at + 1;
                break;
            }
        }
        kept.extend(item[..end].chars().filter(|c| *c == '\n'));
        left = &item[end..];
    }
    kept.push_str(left);
    kept
}

/// An identifier, and what stands around it.
pub struct Word<'a> {
    pub text: &'a str,
    pub before: &'a str,
    pub after: &'a str,
}

impl Word<'_> {
    pub fn begins_path(&self) -> bool {
        !self.before.ends_with("::")
            && (self.after.starts_with("::") || self.before.ends_with("use"))
    }

    pub fn line(&self) -> usize {
        self.before.matches('\n').count() + 1
    }
}

pub fn words(code: &str) -> Vec<Word<'_>> {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut end = 0;
    while let Some(start) = code[end..].find(part).map(|at| end + at) {
        end = code[start..]
            .find(|c| !part(c))
            .map_or(code.len(), |at| start + at);
        words.push(Word {
            text: &code[start..end],
            before: code[..start].trim_end(),
            after: code[end..].trim_start(),
        });
    }
    words
}

/// The names that a path goes on with: one, or those of a group.
fn next_names(after: &str) -> Vec<&str> {
    let Some(rest) = after.strip_prefix("::").map(str::trim_start) else {
        return Vec::new();
    };
    let name = |text: &str| {
        text.find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(text.len())
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![&rest[..name(rest)]];
    };
    let mut names = Vec::new();
    let mut depth = 0;
    let mut begins = true;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            c if begins && !c.is_whitespace() => {
                names.push(&group[at..at + name(&group[at..])]);
                begins = false;
            }
            _ => {}
        }
    }
    names
}

/// The modules below the crate's root that a file uses, each with a line where it does.
pub fn modules_used(source: &Source) -> BTreeMap<String, usize> {
    let code = source.code();
    let depth = source.modules().len();
    let mut used = BTreeMap::new();
    for word in words(&code) {
        let names = match word.text {
            "crate" | "tokenbroker" if word.begins_path() => next_names(word.after),
            "super" if word.begins_path() => {
                let mut after = word.after;
                let mut ups = 1;
                while let ["super"] = next_names(after)[..] {
                    after = after[2..].trim_start()["super".len()..].trim_start();
                    ups += 1;
                }
                if ups < depth {
                    continue;
                }
                next_names(after)
            }
            _ => continue,
        };
        for name in names {
            // What the root re-exports is the error.
            let name = if name == "Error" { "error" } else { name };
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                used.entry(name.to_owned()).or_insert_with(|| word.line());
            }
        }
    }
    used
}

/// The text files that git keeps.
pub fn kept() -> Vec<Source> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        listed.status.success(),
        "run the tests in a git working copy"
    );
    let listed = String::from_utf8(listed.stdout).unwrap();
    let files: Vec<_> = listed
        .split_terminator('\0')
        .filter_map(|path| {
            let text = std::fs::read_to_string(root().join(path)).ok()?;
            let path = path.to_owned();
            Some(Source { path, text })
        })
        .collect();
    assert!(
        files.len() > 50,
        "git keeps only {} files here",
        files.len()
    );
    files
}

#[test]
fn the_reader_of_sources_sees_through_comments_and_texts() {
    let code = stripped("a /* b */ \"c\\\" // d\" 'e' '\\'' r#\"f \" g\"# <'h> // i\nj");
    let found: Vec<_> = words(&code).iter().map(|word| word.text).collect();
    assert_eq!(found, ["a", "h", "j"]);
    let source = |path: &str, text: &str| Source {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let used = modules_used(&source(
        "src/grpc/page.rs",
        "use crate::{a::{x, y}, b};\nuse super::super::c;\nuse super::d; let e = crate::f::g();
         #[cfg(test)] mod tests { use crate::h; } type T = crate::Error;",
    ));
    let used: Vec<_> = used.into_iter().collect();
    let expected = [("a", 1), ("b", 1), ("c", 2), ("error", 4), ("f", 3)];
    assert_eq!(used, expected.map(|(name, line)| (name.to_owned(), line)));
    assert!(modules_used(&source("src/grpc/mod.rs", "use super::store;")).contains_key("store"));
}
