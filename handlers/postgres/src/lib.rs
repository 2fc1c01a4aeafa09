//! The postgres family: rows, tables and functions of a workspace.
