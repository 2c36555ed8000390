//! The hand-over: what PID 1 does from the old root's last moment to the staged root's init.

pub mod report;
pub mod stage;
