"""The paper, claim by claim: what it prints, what comes out here by its protocol, and a verdict.

`minikv.paper.claim` says what a claim is, `minikv.paper.claims` holds one file a claim,
`minikv.paper.run` runs them and keeps what came of them, `minikv.paper.render` makes pages of that.
The paper is Qasim, Zhang, Shaheen and others 2026, arXiv 2603.19664.
"""
