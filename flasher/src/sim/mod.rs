//! Simulated chips that behave as data sheets say, power cuts included. For tests and measurements: a program that
//! does not name them does not hold them.

pub mod cases;
mod faulty;
mod nand;
mod nor;
mod power;
mod sparse;
mod volumes;

pub use faulty::{Fault, Faulty};
pub use nand::{Nand, Wear};
pub use nor::Nor;
pub use power::{HalfErase, power_lost};
pub use sparse::Sparse;
pub use volumes::{Misread, SimVolumes};
