//! What a verification comes to.

/// The most findings that are told.
pub const FINDINGS_MAX: usize = 100;

/// What is collected before it is sorted and cut: findings come nearly in order.
const COLLECTED_MAX: usize = 4 * FINDINGS_MAX;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An entry is not what it was.
    Changed,
    /// An entry is gone.
    Removed,
    /// Entries have other places than they had.
    Reordered,
    /// The end is gone: something signed, or the head, knows of more.
    Truncated,
    /// A checkpoint does not agree with the chain, or its signature is not this service's.
    Checkpoint,
    /// An entry that got no place, long after it was written.
    Unchained,
}

impl Fault {
    /// Its name for scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "CHANGED",
            Self::Removed => "REMOVED",
            Self::Reordered => "REORDERED",
            Self::Truncated => "TRUNCATED",
            Self::Checkpoint => "CHECKPOINT",
            Self::Unchained => "UNCHAINED",
        }
    }
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub fault: Fault,
    /// At which place; 0 where there is none.
    pub position: i64,
    /// Of which entry; empty where it is not known.
    pub event_id: String,
    /// In words.
    pub description: String,
}

/// What a verification comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// What is wrong, by place; the first hundred.
    pub findings: Vec<Finding>,
    /// How many entries were checked.
    pub events_checked: i64,
    /// How many checkpoints were.
    pub checkpoints_checked: i64,
    /// The first place that is kept.
    pub first_position: i64,
    /// The last place; the one before the first where there is none.
    pub last_position: i64,
    /// The hash there.
    pub last_hash: Vec<u8>,
}

impl Verification {
    /// Whether entries up to a place are gone. What else was found stays true when they leave.
    pub(super) fn misses_up_to(&self, place: i64) -> bool {
        let mut findings = self.findings.iter();
        findings.any(|found| found.fault == Fault::Removed && found.position <= place)
    }
}

/// Collects findings, a bounded number of them.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Finding>);

impl Findings {
    pub(super) fn add(
        &mut self,
        fault: Fault,
        position: i64,
        event_id: &str,
        description: impl Into<String>,
    ) {
        if self.0.len() < COLLECTED_MAX {
            self.0.push(Finding {
                fault,
                position,
                event_id: event_id.to_owned(),
                description: description.into(),
            });
        }
    }

    /// By place, the first hundred.
    pub(super) fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| finding.position);
        self.0.truncate(FINDINGS_MAX);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_gone_at_a_place_that_left_may_be_retentions_doing() {
        let with = |fault, position| {
            let mut findings = Findings::default();
            findings.add(fault, position, "", "");
            Verification {
                findings: findings.sorted(),
                ..Verification::default()
            }
        };
        assert!(with(Fault::Removed, 5).misses_up_to(5));
        assert!(!with(Fault::Removed, 6).misses_up_to(5));
        assert!(!with(Fault::Changed, 5).misses_up_to(5));
        assert!(!Verification::default().misses_up_to(5));
    }
}
