//! Calendar time as the C library knows it.

/// A moment, broken into what a calendar shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    /// The year, such as 2026.
    pub(crate) year: i64,
    /// 1 to 12.
    pub(crate) month: i32,
    /// 1 to 31.
    pub(crate) day: i32,
    /// 0 to 23.
    pub(crate) hour: i32,
    /// 0 to 59.
    pub(crate) minute: i32,
    /// 0 to 59.
    pub(crate) second: i32,
}

/// In the time zone of `TZ` or /etc/localtime. None if the C library cannot say it.
#[allow(unsafe_code)]
pub(crate) fn local(unix: i64) -> Option<Broken> {
    let seconds = libc::time_t::try_from(unix).ok()?;
    // SAFETY: all zero is a valid `tm`; both pointers are to live variables, and only this thread runs.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        (!libc::localtime_r(&seconds, &mut tm).is_null()).then(|| of(&tm))
    }
}

/// In UTC.
#[allow(unsafe_code)]
pub(crate) fn utc(unix: i64) -> Option<Broken> {
    let seconds = libc::time_t::try_from(unix).ok()?;
    // SAFETY: as above.
    unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        (!libc::gmtime_r(&seconds, &mut tm).is_null()).then(|| of(&tm))
    }
}

fn of(tm: &libc::tm) -> Broken {
    Broken {
        year: i64::from(tm.tm_year) + 1900,
        month: tm.tm_mon + 1,
        day: tm.tm_mday,
        hour: tm.tm_hour,
        minute: tm.tm_min,
        second: tm.tm_sec,
    }
}
