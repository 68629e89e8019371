//! The building blocks of the model: strings, lists and maps that borrow from the bytes of config.json.
//!
//! `null` stands for an absent list or map, as Go writes it. A string with a NUL byte is refused here, once,
//! because behind it the kernel would read a different name than the one that was checked.

use std::borrow::Cow;
use std::ffi::CString;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};

/// A string of the config, borrowed where it holds no escape. Never contains a NUL byte.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str<'a>(Cow<'a, str>);

impl<'a> Str<'a> {
    pub const fn from_static(text: &'static str) -> Str<'static> {
        Str(Cow::Borrowed(text))
    }

    /// Text from somewhere else than a config, such as the command line; None where it holds a NUL byte.
    pub fn new(text: impl Into<Cow<'a, str>>) -> Option<Self> {
        let text = text.into();
        (!text.as_bytes().contains(&0)).then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn to_c(&self) -> CString {
        CString::new(self.0.as_bytes()).expect("a Str holds no NUL byte")
    }
}

impl Deref for Str<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Str<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Str<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Str<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq<str> for Str<'_> {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Str<'_> {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

struct StrVisitor<'a>(PhantomData<&'a ()>);

impl<'de: 'a, 'a> Visitor<'de> for StrVisitor<'a> {
    type Value = Str<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string without NUL bytes")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Str<'a>, E> {
        Str::new(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Str<'a>, E> {
        Str::new(text.to_owned()).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Str<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(StrVisitor(PhantomData))
    }
}

/// A list that may be absent or `null`; both mean empty.
#[derive(Clone, Debug, PartialEq)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Deref for List<T> {
    type Target = Vec<T>;

    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<'l, T> IntoIterator for &'l List<T> {
    type Item = &'l T;
    type IntoIter = std::slice::Iter<'l, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Option::deserialize(deserializer)?.unwrap_or_default()))
    }
}

/// Reads a field that may be `null`, which means absent: Go reads it so, and some write it.
pub fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A JSON object whose keys are data, in the order of the file; of two equal keys the last counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Map<'a, T>(pub Vec<(Str<'a>, T)>);

impl<T> Default for Map<'_, T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'a, T> Map<'a, T> {
    pub fn get(&self, key: &str) -> Option<&T> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub fn iter(&self) -> std::slice::Iter<'_, (Str<'a>, T)> {
        self.0.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'l, 'a, T> IntoIterator for &'l Map<'a, T> {
    type Item = &'l (Str<'a>, T);
    type IntoIter = std::slice::Iter<'l, (Str<'a>, T)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

struct MapVisitor<'a, T>(PhantomData<(&'a (), T)>);

impl<'de: 'a, 'a, T: Deserialize<'de>> Visitor<'de> for MapVisitor<'a, T> {
    type Value = Map<'a, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Map::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut pairs: Vec<(Str<'a>, T)> = Vec::new();
        while let Some((key, value)) = access.next_entry::<Str<'a>, T>()? {
            match pairs.iter_mut().find(|(name, _)| *name == key) {
                Some(pair) => pair.1 = value,
                None => pairs.push((key, value)),
            }
        }
        Ok(Map(pairs))
    }
}

impl<'de: 'a, 'a, T: Deserialize<'de>> Deserialize<'de> for Map<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MapVisitor(PhantomData))
    }
}

/// The strings of the config are plain paths and names; a `Str` is written as its text.
impl serde::Serialize for Str<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self)
    }
}

impl<T: serde::Serialize> serde::Serialize for Map<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_borrow_unless_escaped() {
        let plain: Str = serde_json::from_str(r#""/bin/sh""#).unwrap();
        assert!(matches!(plain.0, Cow::Borrowed("/bin/sh")));
        let escaped: Str = serde_json::from_str(r#""a\nb""#).unwrap();
        assert_eq!(escaped, "a\nb");
    }

    #[test]
    fn nul_bytes_are_refused_everywhere() {
        assert!(serde_json::from_str::<Str>(r#""a\u0000b""#).is_err());
        assert!(serde_json::from_str::<List<Str>>(r#"["ok", "a\u0000b"]"#).is_err());
        assert!(serde_json::from_str::<Map<Str>>(r#"{"a\u0000b": "x"}"#).is_err());
    }

    #[test]
    fn null_is_absent_and_the_last_key_counts() {
        assert!(serde_json::from_str::<List<u32>>("null").unwrap().is_empty());
        assert!(serde_json::from_str::<Map<Str>>("null").unwrap().is_empty());
        let map: Map<u32> = serde_json::from_str(r#"{"a": 1, "b": 2, "a": 3}"#).unwrap();
        assert_eq!(map.get("a"), Some(&3));
        assert_eq!(map.0.len(), 2);
    }
}
