//! What mphost scripts see.
