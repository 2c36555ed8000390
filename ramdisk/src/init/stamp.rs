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
