//! Sizes and durations as people write them: `"32M"`, `"90s"`.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A number of bytes: `"32M"`, `"512K"`, `"1G"` (powers of 1024), or a plain number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes(pub u64);

/// A time in milliseconds: `"90s"`, `"500ms"`, `"2m"`, `"1h"`, or a plain number of milliseconds (as in s6-rc's files).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Millis(pub u64);

const SIZES: &str = r#"a size such as "32M", "512K", "1G", or a number of bytes"#;
const TIMES: &str = r#"a time such as "90s", "500ms", "2m", or a number of milliseconds"#;
const LEASES: &str = r#"a time of at least a second such as "15m", or "off""#;

/// `lease`: a time as above of at least a second, or `"off"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lease(pub(super) Option<u64>);

/// The units of times, in milliseconds.
const CLOCK: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

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
        let number =
            u64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))?;
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
        deserializer.deserialize_any(Units { expecting: TIMES, units: CLOCK, wrap: Millis })
    }
}

/// On a command line, where a number without a unit could be any.
impl std::str::FromStr for Millis {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let clock = Units { expecting: TIMES, units: CLOCK, wrap: Millis };
        let expected = || format!(r#"expected a time such as "90s", "30m" or "2h", found "{text}""#);
        clock.parse(text.trim()).filter(|time| time.0 > 0).ok_or_else(expected)
    }
}

impl<'de> Deserialize<'de> for Lease {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OffOr(Units<Millis>);
        impl Visitor<'_> for OffOr {
            type Value = Lease;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(LEASES)
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Lease, E> {
                if text == "off" {
                    return Ok(Lease(None));
                }
                let time = self.0.parse(text.trim()).filter(|time| time.0 >= 1_000);
                let no_time = || E::invalid_value(de::Unexpected::Str(text), &self);
                time.map(|time| Lease(Some(time.0))).ok_or_else(no_time)
            }
        }
        deserializer.deserialize_any(OffOr(Units { expecting: LEASES, units: CLOCK, wrap: Millis }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct Both {
        size: Option<Bytes>,
        time: Option<Millis>,
        lease: Option<Lease>,
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
    fn a_lease_is_a_time_or_off_and_never_nothing_at_all() {
        for (text, ms) in [("15m", Some(900_000)), ("1h", Some(3_600_000)), ("off", None)] {
            assert_eq!(both(&format!("lease = \"{text}\"")).lease, Some(Lease(ms)), "{text}");
        }
        for text in ["\"0s\"", "\"999ms\"", "\"never\"", "15", "false", "\"15\""] {
            let e = toml::from_str::<Both>(&format!("lease = {text}")).unwrap_err();
            assert!(e.message().contains(LEASES), "{text}: {e}");
        }
    }

    #[test]
    fn a_time_on_the_command_line_has_a_unit() {
        assert_eq!("30m".parse(), Ok(Millis(1_800_000)));
        for text in ["30", "0s", "", "m", "-5m", "soon"] {
            let e = text.parse::<Millis>().unwrap_err();
            assert_eq!(e, format!(r#"expected a time such as "90s", "30m" or "2h", found "{text}""#));
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
