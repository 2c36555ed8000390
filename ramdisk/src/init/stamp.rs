//! TAI64N stamps, as s6-log writes them: TAI seconds since 1970 plus 2^62, then nanoseconds.

use std::time::Duration;

use tai64::{Tai64, Tai64N};

/// When leap seconds were inserted, seconds since 1970 (IERS Bulletin C; the last one at the end of 2016). A clock that
/// starts in 1970 is 10 seconds behind TAI, today's is 37.
const LEAP_SECONDS: [u64; 27] = [
    78_796_800,
    94_694_400,
    126_230_400,
    157_766_400,
    189_302_400,
    220_924_800,
    252_460_800,
    283_996_800,
    315_532_800,
    362_793_600,
    394_329_600,
    425_865_600,
    489_024_000,
    567_993_600,
    631_152_000,
    662_688_000,
    709_948_800,
    741_484_800,
    773_020_800,
    820_454_400,
    867_715_200,
    915_148_800,
    1_136_073_600,
    1_230_768_000,
    1_341_100_800,
    1_435_708_800,
    1_483_228_800,
];

/// Makes stamps that never go backwards, whatever is done to the clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Stamper {
    last: Option<Tai64N>,
}

impl Stamper {
    /// The stamp for the wall clock's `since_1970`, or the smallest one after the last if the clock went backwards.
    pub(super) fn stamp(&mut self, since_1970: Duration) -> String {
        let mut now = tai(since_1970);
        if let Some(last) = self.last
            && now <= last
        {
            now = last + Duration::from_nanos(1);
        }
        self.last = Some(now);
        label(now)
    }
}

fn tai(since_1970: Duration) -> Tai64N {
    let seconds = since_1970.as_secs();
    let leaps = LEAP_SECONDS.iter().take_while(|at| **at <= seconds).count() as u64;
    Tai64N(Tai64((1 << 62) + 10 + leaps + seconds), since_1970.subsec_nanos())
}

/// A moment read from a stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Seconds since 1970 in UTC; while a leap second lasts, those of the second before it.
    pub(crate) unix: i64,
    /// Below 1,000,000,000.
    pub(crate) nanos: u32,
    /// True while a leap second lasts.
    pub(crate) is_leap: bool,
}

/// Reads a stamp, `@` and 24 hexadecimal digits; none if it is not one.
pub(crate) fn parse_label(label: &[u8]) -> Option<Moment> {
    let digits = std::str::from_utf8(label.strip_prefix(b"@")?).ok()?;
    if digits.len() != 24 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let (seconds, nanos) = digits.split_at_checked(16)?;
    let nanos = u32::from_str_radix(nanos, 16).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    let tai = i128::from(u64::from_str_radix(seconds, 16).ok()?) - (1 << 62) - 10;
    let tai = i64::try_from(tai).ok()?;
    // The n-th leap second is the TAI second right before its entry's UTC second.
    let passed =
        |n: usize, at: u64| i64::try_from(at).is_ok_and(|at| tai >= at + i64::try_from(n).unwrap_or(0));
    let leaps = LEAP_SECONDS.iter().enumerate().take_while(|(n, at)| passed(*n, **at)).count();
    let unix = tai - i64::try_from(leaps).ok()?;
    let is_leap = leaps.checked_sub(1).and_then(|n| LEAP_SECONDS.get(n)).is_some_and(|at| {
        i64::try_from(*at).is_ok_and(|at| unix == at - 1 && tai == at + i64::try_from(leaps).unwrap_or(0) - 1)
    });
    Some(Moment { unix, nanos, is_leap })
}

fn label(stamp: Tai64N) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(25);
    text.push('@');
    for byte in stamp.to_bytes() {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_tai_with_the_leap_seconds_of_its_day() {
        let stamp = |seconds, nanos| Stamper::default().stamp(Duration::new(seconds, nanos));
        assert_eq!(stamp(0, 0), "@400000000000000a00000000");
        // The first leap second came at the end of June 1972.
        assert_eq!(stamp(78_796_799, 1), "@4000000004b2580900000001");
        assert_eq!(stamp(78_796_800, 1), "@4000000004b2580b00000001");
        assert_eq!(stamp(1_700_000_000, 999_999_999), "@400000006553f1253b9ac9ff");
    }

    #[test]
    fn a_stamp_that_is_read_says_when_it_was_made() {
        for at in LEAP_SECONDS.iter().flat_map(|at| [at - 2, at - 1, *at, at + 1]).chain([0, 1_700_000_000]) {
            let stamp = Stamper::default().stamp(Duration::new(at, 7));
            let read = parse_label(stamp.as_bytes()).unwrap();
            assert_eq!(
                read,
                Moment { unix: i64::try_from(at).unwrap(), nanos: 7, is_leap: false },
                "{stamp}"
            );
        }
        for bad in
            ["", "@", "400000000000000a00000000x", "@+00000000000000a00000000", "@400000000000000a3b9aca00"]
        {
            assert_eq!(parse_label(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn stamps_rise_even_when_the_clock_is_set_back() {
        let mut stamper = Stamper::default();
        let stamps: Vec<String> =
            [100, 100, 5, 200, 0].map(|seconds| stamper.stamp(Duration::from_secs(seconds))).to_vec();
        let mut sorted = stamps.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(stamps, sorted);
    }
}
