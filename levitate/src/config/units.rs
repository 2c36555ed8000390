//! Sizes and durations as people write them: `"32M"`, `"90s"`.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A number of bytes: `"32M"`, `"512K"`, `"1G"` (powers of 1024), or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A time in milliseconds: `"90s"`, `"500ms"`, `"2m"`, or a plain number of milliseconds (as in s6-rc's files).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u64);

const SIZES: &str = r#"a size such as "32M", "512K", "1G", or a number of bytes"#;
const TIMES: &str = r#"a time such as "90s", "500ms", "2m", or a number of milliseconds"#;

struct Units<T> {
    expecting: &'static str,
    units: &'static [(&'static str, u64)],
    wrap: fn(u64) -> T,
}

impl<T> Units<T> {
    fn parse(&self, text: &str) -> Option<T> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let (_, factor) = self.units.iter().find(|(name, _)| *name == unit.trim())?;
        Some((self.wrap)(number.checked_mul(*factor)?))
    }
}

impl<T> Visitor<'_> for Units<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let number = u64::try_from(number)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
        Ok((self.wrap)(number))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        Ok((self.wrap)(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        self.parse(text.trim()).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let units = &[("", 1), ("K", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)];
        deserializer.deserialize_any(Units { expecting: SIZES, units, wrap: Bytes })
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let units = &[("ms", 1), ("s", 1_000), ("m", 60_000)];
        deserializer.deserialize_any(Units { expecting: TIMES, units, wrap: Millis })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Both {
        size: Option<Bytes>,
        time: Option<Millis>,
    }

    fn both(text: &str) -> Both {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn sizes_and_times_are_read_with_and_without_units() {
        for (text, bytes) in [("\"32M\"", 32 << 20), ("\"512 K\"", 512 << 10), ("\"7\"", 7), ("9", 9)] {
            assert_eq!(both(&format!("size = {text}")).size, Some(Bytes(bytes)), "{text}");
        }
        for (text, ms) in [("\"90s\"", 90_000), ("\"500ms\"", 500), ("\"2m\"", 120_000), ("250", 250)] {
            assert_eq!(both(&format!("time = {text}")).time, Some(Millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_told_with_what_would_be_one() {
        for text in ["\"32X\"", "\"\"", "\"M\"", "-1", "\"99999999999999999999\"", "\"17179869184G\""] {
            let e = toml::from_str::<Both>(&format!("size = {text}")).unwrap_err();
            assert!(e.message().contains(SIZES), "{text}: {e}");
        }
        let e = toml::from_str::<Both>("time = \"90\"").unwrap_err();
        assert!(e.message().contains(TIMES), "{e}");
    }
}
