//! Servers that take load in turns, so that none has a better machine than another.

use crate::Outcome;
use crate::h2load::Load;
use crate::process::Process;

/// One of them.
pub struct Contestant<'a> {
    /// What it is called on the page.
    pub name: &'static str,
    /// What it is sent.
    pub load: Load<'a>,
    /// Calls a second, of each round.
    pub rates: Vec<f64>,
    /// What its threads spent a call in microseconds, of each round.
    pub spent: Vec<f64>,
    process: &'a Process,
}

impl<'a> Contestant<'a> {
    /// That has not run yet.
    pub fn new(name: &'static str, process: &'a Process, load: Load<'a>) -> Self {
        Self {
            name,
            load,
            rates: Vec::new(),
            spent: Vec::new(),
            process,
        }
    }

    fn run(&mut self, counts: bool) -> Outcome<()> {
        let before = self.process.spent()?;
        let seen = self.load.run()?;
        let spent = self.process.spent()?.saturating_sub(before);
        if counts {
            self.rates.push(seen.rate);
            let micros = spent.as_secs_f64() * 1e6;
            self.spent.push(micros / self.load.calls as f64);
        }
        Ok(())
    }
}

/// So many rounds, and one before them that warms up. Their order is afterwards what it was.
pub fn compete(contestants: &mut [Contestant<'_>], rounds: usize) -> Outcome<()> {
    let there = contestants.len().max(1);
    for round in 0..=rounds {
        // Whoever comes first in a round has another machine than whoever comes last.
        contestants.rotate_left(1 % there);
        for one in contestants.iter_mut() {
            one.run(round > 0)?;
        }
    }
    contestants.rotate_right((rounds + 1) % there);
    Ok(())
}
