//! Changes of what is kept.

/// Puts a value into a field; the field's name, if the value is another now.
pub fn put<T: Clone + PartialEq>(
    name: &'static str,
    field: &mut T,
    value: Option<&T>,
) -> Option<&'static str> {
    let value = value.filter(|value| **value != *field)?;
    field.clone_from(value);
    Some(name)
}
