//! Scenarios are in `tests/`; this library is empty on purpose.
