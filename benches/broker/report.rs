//! The page of figures.

use std::time::Duration;

use crate::Scale;

/// What was measured, as Markdown.
pub struct Report {
    scale: Scale,
    machine: String,
    sections: Vec<Section>,
}

/// One table with what to know about it.
pub struct Section {
    title: &'static str,
    text: String,
    head: &'static [&'static str],
    rows: Vec<Vec<String>>,
}

impl Section {
    /// A section without rows.
    pub fn new(title: &'static str, text: String, head: &'static [&'static str]) -> Self {
        Self {
            title,
            text,
            head,
            rows: Vec::new(),
        }
    }

    /// Adds a row, and shows it at once.
    pub fn row(&mut self, cells: Vec<String>) {
        eprintln!("{}: {}", self.title, cells.join(" | "));
        self.rows.push(cells);
    }

    fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
        let head: Vec<String> = self.head.iter().map(|&cell| cell.to_owned()).collect();
        let rule = vec!["---".to_owned(); self.head.len()];
        let rows: String = self.rows.iter().map(|row| line(row)).collect();
        format!(
            "## {}\n{}\n\n{}{}{rows}",
            self.title,
            self.text,
            line(&head),
            line(&rule)
        )
    }
}

impl Report {
    /// A page about this machine.
    pub fn new(scale: Scale, machine: String) -> Self {
        Self {
            scale,
            machine,
            sections: Vec::new(),
        }
    }

    /// Adds a section.
    pub fn add(&mut self, section: Section) {
        println!("\n{}", section.markdown());
        self.sections.push(section);
    }

    /// The whole page.
    pub fn finish(self, took: Duration) -> String {
        let command = self.scale.of("make bench", "QUICK=1 make bench");
        let run = self.scale.of("full", "quick (small numbers)");
        let sections: Vec<String> = self.sections.iter().map(Section::markdown).collect();
        format!(
            "# Benchmarks\nWritten by `{command}`, a {run} run of {} s; the code is in `benches/`. \
             Compare figures of one run with each other, and runs only on one machine.\n\n\
             ## The machine\n{}\n{}",
            took.as_secs(),
            self.machine,
            sections.join("\n")
        )
    }
}
