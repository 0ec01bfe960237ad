//! Which fields an update names.

use prost_types::FieldMask;

use super::fields::Fields;

/// Longest part of a path that is shown, in characters.
const SHOWN_MAX: usize = 64;

/// The paths of an update (AIP-134): without any, the fields that are set are meant; `*` means all.
pub struct Mask(Vec<String>);

impl Mask {
    /// Judges the paths: each is one of `mutable` or `*`, else `update_mask` is at fault.
    pub fn of(fields: &mut Fields, mask: Option<FieldMask>, mutable: &[&str]) -> Self {
        let paths = mask.unwrap_or_default().paths;
        for path in paths.iter().filter(|path| *path != "*") {
            if !mutable.contains(&path.as_str()) {
                let printable = path.chars().filter(|c| !c.is_control());
                let shown: String = printable.take(SHOWN_MAX).collect();
                let fault = format!("{shown:?} is not a field that can be changed");
                fields.check(false, "update_mask", fault);
            }
        }
        Self(paths)
    }

    /// Whether the field of this name is to change; `set` is whether it has a value.
    pub fn names(&self, name: &str, set: bool) -> bool {
        match self.0.is_empty() {
            true => set,
            false => self.0.iter().any(|path| path == "*" || path == name),
        }
    }
}
