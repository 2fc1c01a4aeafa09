//! Tokens and identities: the auth and IAM families, before Keycloak.
