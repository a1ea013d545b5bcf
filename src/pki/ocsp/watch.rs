//! What goes on when nobody asks.
