//! Holds nothing: the tests are in `tests/brokers`, one module a broker or database.
