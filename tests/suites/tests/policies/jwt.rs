//! Tokens that must not get in.

use anyhow::Result;
use postern_harness::stack::Stack;
use postern_harness::token::Token;

/// A request that everybody with a token may make.
const ANY: &str = "/v1/platform/info";

#[tokio::test]
async fn a_key_that_the_issuer_does_not_publish_signs_nothing() -> Result<()> {
    let stack = Stack::shared().await?;
    let admin = Token::platform("platform_admin");
    stack.client(&admin).await?.get(ANY).await?.expect(200)?;
    let unknown = stack.client(&admin.key_id(Some("invented"))).await?;
    unknown
        .get(ANY)
        .await?
        .refused(401, "TOKEN_INVALID")
        .map(drop)
}
