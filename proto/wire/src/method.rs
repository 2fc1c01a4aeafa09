//! The request methods that the protocol can name (`A6.Method`).

use crate::generated::a6;

macro_rules! methods {
    ($($variant:ident = $wire:ident),* $(,)?) => {
        /// A request's method. APISIX answers 500 itself to any other.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Method {
            $(#[doc = stringify!($wire)] $variant,)*
        }

        impl Method {
            /// Every method, in the order of their numbers on the wire.
            pub const ALL: [Self; a6::Method::ENUM_VALUES.len()] = [$(Self::$variant),*];

            /// The method as a request line spells it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => stringify!($wire),)* }
            }

            pub(crate) fn from_wire(wire: a6::Method) -> Option<Self> {
                match wire {
                    $(a6::Method::$wire => Some(Self::$variant),)*
                    _ => None,
                }
            }

            pub(crate) const fn to_wire(self) -> a6::Method {
                match self { $(Self::$variant => a6::Method::$wire,)* }
            }
        }
    };
}

methods! {
    Get = GET, Head = HEAD, Post = POST, Put = PUT, Delete = DELETE,
    Mkcol = MKCOL, Copy = COPY, Move = MOVE, Options = OPTIONS,
    Propfind = PROPFIND, Proppatch = PROPPATCH, Lock = LOCK, Unlock = UNLOCK,
    Patch = PATCH, Trace = TRACE,
}

impl Method {
    /// The number that stands for the method on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.to_wire().0
    }
}

impl std::fmt::Display for Method {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The protocol has no number for this method.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the external-plugin protocol has no number for the method {0:?}")]
pub struct UnnamedMethod(pub String);

impl std::str::FromStr for Method {
    type Err = UnnamedMethod;

    fn from_str(name: &str) -> Result<Self, UnnamedMethod> {
        Self::ALL
            .into_iter()
            .find(|method| method.as_str() == name)
            .ok_or_else(|| UnnamedMethod(name.to_owned()))
    }
}
