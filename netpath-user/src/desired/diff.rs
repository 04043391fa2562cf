//! The steps from one state to another.
