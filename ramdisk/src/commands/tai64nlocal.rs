//! `s6-tai64nlocal`: the TAI64N stamps at the beginnings of lines as local time, or with `-g` as UTC.

use std::io::BufRead;

use super::options::parse;
use super::{Context, SYSTEM};
use crate::init::stamp::parse_label;
use crate::sys::time::{Broken, local, utc};

pub(super) const HELP: &str = "s6-tai64nlocal [ -g ] < lines";

/// A stamp with its `@`.
const LABEL: usize = 25;

pub(super) fn run(context: &mut Context<'_>, words: Vec<String>, input: &mut dyn BufRead) -> u8 {
    let parsed = match parse(words, "g", "", &[]) {
        Ok(parsed) if parsed.rest.is_empty() => parsed,
        Ok(_) => return context.usage("expected lines on standard input and no arguments"),
        Err(why) => return context.usage(&why),
    };
    let broken: fn(i64) -> Option<Broken> = if parsed.has('g') { utc } else { local };
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.read_until(b'\n', &mut line) {
            Ok(0) => return 0,
            Ok(_) => {}
            Err(error) => return context.fatal(SYSTEM, &format!("cannot read standard input: {error}")),
        }
        let code = context.print(&converted(&line, broken));
        if code != 0 {
            return code;
        }
    }
}

/// The line with its stamp made readable; without one, as it is.
fn converted(line: &[u8], broken: fn(i64) -> Option<Broken>) -> Vec<u8> {
    let Some((label, rest)) = line.split_at_checked(LABEL) else { return line.to_vec() };
    let Some(moment) = parse_label(label) else { return line.to_vec() };
    let Some(at) = broken(moment.unix) else { return line.to_vec() };
    // While a leap second lasts the clock shows 60.
    let second = at.second + i32::from(moment.is_leap);
    let time = format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{second:02}.{:09}",
        at.year, at.month, at.day, at.hour, at.minute, moment.nanos
    );
    [time.as_bytes(), rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(text: &[u8]) -> String {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut context = super::super::context("s6-tai64nlocal", &mut out, &mut err);
        assert_eq!(run(&mut context, vec!["-g".into()], &mut &text[..]), 0);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn stamps_become_times_and_everything_else_stays_as_it_is() {
        // A line of the manual: TAI was 10 seconds ahead in 1970.
        assert_eq!(
            convert(b"@40000000000284f130747343 wan.link.pppoe Connect: ppp0\n"),
            "1970-01-02 21:51:35.812938051 wan.link.pppoe Connect: ppp0\n"
        );
        for same in ["", "\n", "@4000\n", "no stamp at all in this line\n", "@400000000000000a0000000g x\n"] {
            assert_eq!(convert(same.as_bytes()), same);
        }
        // Nanoseconds that cannot be, and a time before 1970.
        assert_eq!(convert(b"@400000000000000a3b9aca00"), "@400000000000000a3b9aca00");
        assert_eq!(convert(b"@4000000000000009000000001"), "1969-12-31 23:59:59.0000000001");
    }

    #[test]
    fn a_leap_second_is_the_sixtieth_of_its_minute() {
        assert_eq!(convert(b"@40000000586846a3000000001"), "2016-12-31 23:59:59.0000000001");
        assert_eq!(convert(b"@40000000586846a40000000012"), "2016-12-31 23:59:60.00000000012");
        assert_eq!(convert(b"@40000000586846a5000000001"), "2017-01-01 00:00:00.0000000001");
    }
}
