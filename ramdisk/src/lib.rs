//! A small root in RAM, and the init that runs it.
