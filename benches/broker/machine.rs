//! What the figures were measured on.

use std::process::Command;

use crate::{Outcome, database};

/// A list for the page.
pub async fn describe() -> Outcome<String> {
    let cores = std::thread::available_parallelism()?;
    let postgres = database::postgres_version().await?;
    let lines = [
        ("Processor", format!("{}, {cores} cores", processor()?)),
        ("Memory", memory()?),
        ("Kernel", read("/proc/sys/kernel/osrelease")?),
        ("Folder of the databases", file_system()?),
        (
            "Software",
            format!(
                "tokenbroker {}, {}, SQLite {}, PostgreSQL {postgres}, {}",
                env!("CARGO_PKG_VERSION"),
                said("rustc", &["--version"])?,
                database::sqlite_version()?,
                said("h2load", &["--version"])?,
            ),
        ),
        ("Date", date()),
    ];
    let mut text = String::new();
    for (name, value) in lines {
        text.push_str(&format!("- {name}: {value}\n"));
    }
    Ok(text)
}

fn processor() -> Outcome<String> {
    let info = read("/proc/cpuinfo")?;
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or("unknown", |(_, model)| model.trim());
    Ok(model.to_owned())
}

fn memory() -> Outcome<String> {
    let info = read("/proc/meminfo")?;
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .ok_or("/proc/meminfo tells no total")?;
    let kibibytes: u64 = total.trim().trim_end_matches(" kB").parse()?;
    Ok(format!("{:.1} GiB", kibibytes as f64 / 1048576.0))
}

/// Which kind of file system holds the temporary folder: it decides what a flush to disk costs.
fn file_system() -> Outcome<String> {
    let folder = std::env::temp_dir().canonicalize()?;
    let mounts = read("/proc/mounts")?;
    let kind = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (place, kind) = (words.next()?, words.next()?);
            folder.starts_with(place).then_some((place.len(), kind))
        })
        .max_by_key(|(length, _)| *length)
        .map_or("unknown", |(_, kind)| kind);
    Ok(kind.to_owned())
}

fn date() -> String {
    let now = jiff::Timestamp::now().to_string();
    now.split('T').next().unwrap_or_default().to_owned()
}

fn read(path: &str) -> Outcome<String> {
    Ok(std::fs::read_to_string(path)?.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> Outcome<String> {
    let output = Command::new(program).args(arguments).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}
