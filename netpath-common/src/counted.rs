//! What is counted under a number: the reasons of drops and the ways of packets share this shape.

/// Defines an enum whose number is the index of a counter, with a stable name and an explanation for each variant.
macro_rules! counted {
    (
        $(#[doc = $enum_doc:literal])+
        $enum:ident:
        $($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal;)+
    ) => {
        $(#[doc = $enum_doc])+
        #[repr(u32)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $enum {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl $enum {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name that the command line and metrics show.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// One sentence for an operator.
            #[must_use]
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}
pub(crate) use counted;
