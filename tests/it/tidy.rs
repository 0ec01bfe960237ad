//! How the source is cut, checked by path: who may use what, names, lengths, and what must not be
//! in the repository. ARCHITECTURE.md says why.

mod layers;
mod source;

use std::collections::{BTreeMap, BTreeSet};

use layers::{CRATES, EXCEPTIONS, MAY_USE, is_exception, lists};
use source::{Source, kept, modules_used, root, sources, stripped, words};

/// Longest source file, in lines.
const LINES_MAX: usize = 500;

/// Names that say nothing.
const BANNED_NAMES: &[&str] = &[
    "common", "helper", "helpers", "manager", "managers", "misc", "type", "types", "util", "utils",
];

/// Hosts that packages come from; where a build gets them is the machine's business.
const REGISTRIES: &[&str] = &[
    "crates.io",
    "jfrog.io",
    "npmjs.org",
    "npmjs.com",
    "yarnpkg.com",
    "pypi.org",
    "pythonhosted.org",
    "golang.org",
    "rubygems.org",
    "artifactory",
    "nexus",
];

/// Fails with every fault and what to do about them.
#[track_caller]
fn none(faults: &[String], advice: &str) {
    assert!(faults.is_empty(), "{}\n=> {advice}", faults.join("\n"));
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        let Some(module) = source.module() else {
            continue;
        };
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            faults.push(format!("{}: `{module}` has no row in MAY_USE", source.path));
            continue;
        };
        for (name, line) in modules_used(&source) {
            if name != module && !lists(allowed, &name) && !is_exception(&source.path, &name) {
                faults.push(format!("{}:{line}: {module} uses {name}", source.path));
            }
        }
    }
    none(
        &faults,
        "dependencies go one way (ARCHITECTURE.md): ask the layer between them, move what both \
         need below both, or follow committed events; a new module gets its row in tests/it/tidy/layers.rs",
    );
}

#[test]
fn crates_are_used_where_they_belong() {
    let mut faults = Vec::new();
    for source in sources(&["src"]) {
        let code = source.code();
        let module = source.module().unwrap_or_default();
        for word in words(&code).iter().filter(|word| word.begins_path()) {
            let owners = CRATES.iter().find(|(crates, _)| lists(crates, word.text));
            if let Some((_, owners)) = owners
                && !lists(owners, module)
                && !is_exception(&source.path, word.text)
            {
                faults.push(format!("{}:{}: {}", source.path, word.line(), word.text));
            }
        }
    }
    none(
        &faults,
        "each of these crates has its home (tests/it/tidy/layers.rs): call the module that \
         wraps it, and add to that what is missing",
    );
}

#[test]
fn every_exception_is_needed() {
    let mut faults = Vec::new();
    for (path, name, reason) in EXCEPTIONS {
        let text = std::fs::read_to_string(root().join(path)).unwrap_or_default();
        let source = Source {
            path: (*path).to_owned(),
            text,
        };
        let code = source.code();
        let used = modules_used(&source).contains_key(*name)
            || words(&code)
                .iter()
                .any(|word| word.text == *name && word.begins_path());
        if !used {
            faults.push(format!("{path} does not use {name} ({reason})"));
        }
    }
    none(&faults, "remove what is not needed from EXCEPTIONS");
}

#[test]
fn only_crypto_and_the_columns_make_sealed_values() {
    let faults: Vec<_> = sources(&["src"])
        .iter()
        .filter(|source| {
            !source.path.starts_with("src/crypto/")
                && source.path != "src/store/columns.rs"
                && source.path != "src/model/sealed.rs"
                && words(&source.code())
                    .iter()
                    .any(|word| word.text == "from_envelope")
        })
        .map(|source| source.path.clone())
        .collect();
    none(
        &faults,
        "seal it with crypto::Keyring: whoever calls Sealed::from_envelope can store a plaintext",
    );
}

/// The migrations of an engine, in order.
fn migrations(engine: &str) -> BTreeSet<String> {
    let folder = root().join("migrations").join(engine);
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn both_engines_have_the_same_migrations() {
    let names = migrations("sqlite");
    assert_eq!(
        names,
        migrations("postgres"),
        "give both engines every migration"
    );
    let embedded = std::fs::read_to_string(root().join("src/store/migrate.rs")).unwrap();
    let mut faults = Vec::new();
    for (place, name) in names.iter().enumerate() {
        if !name.starts_with(&format!("{:04}_", place + 1)) {
            faults.push(format!("{name} is not number {}", place + 1));
        }
        if !embedded.contains(&format!("migration!(\"{name}\")")) {
            faults.push(format!("{name} is not embedded"));
        }
        for engine in ["sqlite", "postgres"] {
            let folder = root().join("migrations").join(engine).join(name);
            let up = std::fs::read_to_string(folder.join("up.sql")).unwrap_or_default();
            let oldest = up
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("-- oldest-compatible: "));
            if !oldest.is_some_and(|oldest| names.contains(oldest)) {
                faults.push(format!(
                    "{engine}/{name}/up.sql does not begin with a known migration"
                ));
            }
            if !folder.join("down.sql").is_file() {
                faults.push(format!("{engine}/{name} has no down.sql"));
            }
        }
    }
    none(
        &faults,
        "number migrations without gaps, list them in src/store/migrate.rs, give each an up.sql \
         that begins with `-- oldest-compatible: NAME`, and a down.sql",
    );
}

#[test]
fn files_are_short_enough_to_read() {
    let faults: Vec<_> = sources(&["src", "tests/it"])
        .iter()
        .map(|source| (source, source.text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(source, lines)| format!("{}: {lines} lines", source.path))
        .collect();
    none(
        &faults,
        "split the file by what it does; 100 to 400 lines read well, 500 is the limit",
    );
}

#[test]
fn file_names_say_something() {
    let faults: Vec<_> = sources(&["src", "tests/it"])
        .into_iter()
        .map(|source| source.path)
        .filter(|path| {
            let path = path.strip_suffix(".rs").unwrap();
            path.split('/').any(|part| BANNED_NAMES.contains(&part))
        })
        .collect();
    none(&faults, "name the file after what is in it, with a noun");
}

#[test]
fn every_file_is_compiled() {
    let all = sources(&["src", "tests/it"]);
    let texts: BTreeMap<_, _> = all.iter().map(|s| (s.path.as_str(), &s.text)).collect();
    let mut faults = Vec::new();
    for path in texts.keys() {
        let module = path
            .strip_suffix("/mod.rs")
            .or_else(|| path.strip_suffix(".rs"))
            .unwrap();
        let (folder, name) = module.rsplit_once('/').unwrap();
        if matches!(*path, "src/lib.rs" | "src/main.rs" | "tests/it/main.rs") {
            continue;
        }
        let parents = [
            format!("{folder}/mod.rs"),
            format!("{folder}.rs"),
            format!("{folder}/lib.rs"),
            format!("{folder}/main.rs"),
        ];
        let declared = parents
            .iter()
            .filter_map(|parent| texts.get(parent.as_str()))
            .any(|text| {
                text.lines().any(|line| {
                    line.trim_end()
                        .strip_suffix(&format!("mod {name};"))
                        .is_some_and(|before| before.is_empty() || before.ends_with(' '))
                })
            });
        if !declared {
            faults.push((*path).to_owned());
        }
    }
    none(
        &faults,
        "declare the file as a module, or delete it: nothing in it is compiled",
    );
}

#[test]
fn nothing_is_left_for_later() {
    let mut faults = Vec::new();
    for source in sources(&["src", "tests/it"]) {
        let code = stripped(&source.text);
        for word in words(&code) {
            let left = match word.text {
                "ignore" => word.before.ends_with("#["),
                "todo" | "unimplemented" | "dbg" => word.after.starts_with('!'),
                _ => false,
            };
            if left {
                faults.push(format!("{}:{}: {}", source.path, word.line(), word.text));
            }
        }
    }
    none(
        &faults,
        "finish it or take it out: a test that does not run proves nothing",
    );
}

/// Whether a line names a folder of somebody's machine.
fn has_machine_path(line: &str) -> bool {
    ["work", "root", "home", "Users"].iter().any(|folder| {
        let folder = format!("/{folder}");
        line.match_indices(&folder).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + folder.len()..].chars().next();
            !before.is_some_and(|c| c.is_alphanumeric() || "._-/}~>*)".contains(c))
                && !after.is_some_and(|c| c.is_alphanumeric() || "._-:".contains(c))
        })
    })
}

/// Whether a line names a host that packages come from.
fn has_registry(line: &str) -> bool {
    line.match_indices("://").any(|(at, mark)| {
        let place = line[at + mark.len()..]
            .split(['/', ' ', '"', '\'', ')', '>', '`'])
            .next();
        let host = place
            .and_then(|place| place.rsplit('@').next())
            .unwrap_or_default();
        REGISTRIES.iter().any(|registry| host.contains(registry))
    })
}

#[test]
fn no_file_names_a_folder_of_somebodys_machine() {
    let slash = "/";
    assert!(has_machine_path(&format!("cd {slash}home/me")));
    assert!(!has_machine_path("https://example.com/home/me"));
    let mut faults = Vec::new();
    for file in kept() {
        for (number, line) in file.text.lines().enumerate() {
            if has_machine_path(line) {
                faults.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(
        &faults,
        "write paths from the repository's root, or take them from the environment",
    );
}

#[test]
fn no_file_names_a_package_registry() {
    let scheme = "https:";
    assert!(has_registry(&format!("{scheme}//static.crates.io/x")));
    assert!(!has_registry(&format!(
        "{scheme}//github.com/rust-lang/crates.io-index"
    )));
    let mut faults = Vec::new();
    for file in kept() {
        for (number, line) in file.text.lines().enumerate() {
            let resolved =
                file.path.ends_with("package-lock.json") && line.contains("\"resolved\"");
            if resolved || has_registry(line) {
                faults.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none(
        &faults,
        "leave the registry to the machine's configuration; lock files keep versions and hashes",
    );
}
