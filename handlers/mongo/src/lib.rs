//! The mongo family: documents and collections of a workspace.
