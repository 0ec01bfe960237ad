//! What became of entries whose hash does not fit: changed, or only moved.

use std::collections::HashMap;

use super::super::chain;
use super::findings::{Fault, Findings};

/// The most places that are compared with each other; the effort grows with their square.
pub(super) const SUSPECTS_MAX: usize = 200;

/// A place whose hash does not fit, or can't be checked because the place before is gone.
#[derive(Clone, Debug)]
pub(super) struct Suspect {
    pub position: i64,
    pub event_id: String,
    /// The hash stored at the place before; none where that place is gone.
    pub previous: Option<Vec<u8>>,
    /// The hash stored here.
    pub stored: Vec<u8>,
    /// The entry's canonical bytes.
    pub canonical: Vec<u8>,
}

/// Says of each what can be told.
///
/// An entry that was moved together with its hash fits behind the hash of another place: that tells
/// where it stood. One that was moved without it fits the hash of another place. What fits nowhere was
/// changed.
pub(super) fn classify(suspects: &[Suspect], findings: &mut Findings) {
    let links = links(suspects);
    for (index, suspect) in suspects.iter().enumerate() {
        let Suspect {
            position, event_id, ..
        } = suspect;
        if let Some(stood) = place_of(index, suspects, &links) {
            if stood != *position {
                findings.add(
                    Fault::Reordered,
                    *position,
                    event_id,
                    format!("the entry at place {position} stood at place {stood}"),
                );
            }
            continue;
        }
        let Some(previous) = &suspect.previous else {
            // Nothing to compare it with; that the place before is gone is a finding already.
            continue;
        };
        let belongs = suspects.iter().find(|other| {
            other.position != *position
                && chain::hash(previous, &other.canonical).as_slice() == suspect.stored
        });
        match belongs {
            Some(other) => findings.add(
                Fault::Reordered,
                *position,
                event_id,
                format!(
                    "the entry that belongs at place {position} ({}) stands at place {}",
                    other.event_id, other.position
                ),
            ),
            None => findings.add(Fault::Changed, *position, event_id, changed(*position)),
        }
    }
}

/// What is said of an entry that does not fit.
pub(super) fn changed(position: i64) -> String {
    format!(
        "the entry at place {position} does not fit its hash: the entry, its hash or the hash of the \
         place before was changed"
    )
}

/// Where the hash stands that an entry was chained to.
#[derive(Clone, Copy, Debug)]
enum Holder {
    /// At a place that is no suspect, or was one's predecessor.
    Place(i64),
    /// At this suspect.
    Suspect(usize),
}

/// For each suspect, where the hash stands behind which it fits.
fn links(suspects: &[Suspect]) -> Vec<Option<Holder>> {
    let mut holders: HashMap<&[u8], Holder> = HashMap::new();
    for suspect in suspects {
        if let Some(previous) = &suspect.previous {
            holders.insert(previous, Holder::Place(suspect.position - 1));
        }
    }
    // A suspect that is also another's predecessor counts as a suspect.
    for (index, suspect) in suspects.iter().enumerate() {
        holders.insert(&suspect.stored, Holder::Suspect(index));
    }
    suspects
        .iter()
        .map(|suspect| {
            let fits = |previous: &[u8]| {
                chain::hash(previous, &suspect.canonical).as_slice() == suspect.stored
            };
            holders
                .iter()
                .find(|(previous, _)| fits(previous))
                .map(|(_, holder)| *holder)
        })
        .collect()
}

/// The place where a suspect stood: the one behind the place where its predecessor stood. `None` when
/// its predecessor is not known.
fn place_of(index: usize, suspects: &[Suspect], links: &[Option<Holder>]) -> Option<i64> {
    let mut at = index;
    // Each step goes to a predecessor; more steps than suspects would be a circle.
    for steps in 1..=i64::try_from(suspects.len()).unwrap_or(i64::MAX) {
        match links.get(at).copied().flatten() {
            Some(Holder::Place(place)) => return Some(place + steps),
            Some(Holder::Suspect(other)) => at = other,
            // One that is not known to have moved.
            None if at != index => {
                return suspects.get(at).map(|suspect| suspect.position + steps - 1);
            }
            None => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chain of entries whose bytes are their place, walked as verification walks it.
    fn classified(change: impl FnOnce(&mut Vec<(Vec<u8>, Vec<u8>)>)) -> Vec<(Fault, i64)> {
        let mut previous = chain::ORIGIN.to_vec();
        let mut rows = Vec::new();
        for place in 1..=9_u8 {
            let bytes = vec![place];
            previous = chain::hash(&previous, &bytes).to_vec();
            rows.push((bytes, previous.clone()));
        }
        change(&mut rows);
        let mut suspects = Vec::new();
        let mut previous = chain::ORIGIN.to_vec();
        for (position, (canonical, stored)) in (1..).zip(rows) {
            if chain::hash(&previous, &canonical).as_slice() != stored {
                suspects.push(Suspect {
                    position,
                    event_id: String::new(),
                    previous: Some(previous),
                    stored: stored.clone(),
                    canonical,
                });
            }
            previous = stored;
        }
        let mut findings = Findings::default();
        classify(&suspects, &mut findings);
        let sorted = findings.sorted().into_iter();
        sorted.map(|found| (found.fault, found.position)).collect()
    }

    #[test]
    fn one_change_is_one_finding() {
        assert_eq!(classified(|_| {}), []);
        assert_eq!(
            classified(|rows| rows[3].0 = vec![99]),
            [(Fault::Changed, 4)]
        );
        // With a hash that fits: then it's the next that no longer follows from it.
        let forged = |rows: &mut Vec<(Vec<u8>, Vec<u8>)>| {
            rows[3].0 = vec![99];
            rows[3].1 = chain::hash(&rows[2].1, &[99]).to_vec();
        };
        assert_eq!(classified(forged), [(Fault::Changed, 5)]);
    }

    #[test]
    fn rows_that_changed_places_are_told_from_changed_ones() {
        let both = [(Fault::Reordered, 3), (Fault::Reordered, 7)];
        assert_eq!(classified(|rows| rows.swap(2, 6)), both);
        let contents = |rows: &mut Vec<(Vec<u8>, Vec<u8>)>| {
            let third = rows[2].0.clone();
            rows[2].0 = std::mem::replace(&mut rows[6].0, third);
        };
        assert_eq!(classified(contents), both);
        let neighbours = [(Fault::Reordered, 4), (Fault::Reordered, 5)];
        assert_eq!(classified(|rows| rows.swap(3, 4)), neighbours);
        let first = [(Fault::Reordered, 1), (Fault::Reordered, 9)];
        assert_eq!(classified(|rows| rows.swap(0, 8)), first);
    }
}
