//! Instants between the database and JSON.

use postern_contract::envelope::timestamp;
use serde::{Serialize, Serializer};
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, Encode, Postgres, Type};

/// `timestamptz` in the database, RFC 3339 with milliseconds in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub jiff::Timestamp);

/// 2000-01-01T00:00:00Z, where PostgreSQL counts its microseconds from.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Fixed by PostgreSQL (`pg_type.dat`); by name it would have to be asked for.
const TIMESTAMPTZ: Oid = Oid(1184);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&timestamp(self.0))
    }
}

impl Type<Postgres> for Time {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl Encode<'_, Postgres> for Time {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = self
            .0
            .as_microsecond()
            .checked_sub(POSTGRES_EPOCH_MICROS)
            .ok_or("instant out of range")?;
        Encode::<Postgres>::encode(micros, buffer)
    }
}

impl Decode<'_, Postgres> for Time {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                let micros = <i64 as Decode<Postgres>>::decode(value)?;
                let micros = micros
                    .checked_add(POSTGRES_EPOCH_MICROS)
                    .ok_or("instant out of range")?;
                Ok(Self(jiff::Timestamp::from_microsecond(micros)?))
            }
            // `2024-01-15 10:00:00.5+00`, sent for queries without parameters.
            PgValueFormat::Text => Ok(Self(value.as_str()?.replacen(' ', "T", 1).parse()?)),
        }
    }
}
