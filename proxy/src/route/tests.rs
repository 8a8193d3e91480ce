//! The table as a whole, against a scan of every route in order.
