//! Audits between real engines at any moment of any history never report a difference.
