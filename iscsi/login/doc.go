// Package login is the login phase of an iSCSI target as a value (RFC 7143
// sections 6 and 13): a login request goes in, a response comes out. It knows no
// connection, no clock and no randomness but what its Policy hands in.
//
//	         AuthMethod=None, allowed          T, NSG 3
//	┌──────────┐ ───────────────► ┌─────────────┐ ───► done
//	│ security │                  │ operational │
//	└──────────┘ ◄─ CHAP_A, _I/_C └─────────────┘
//	      └── CHAP_N, CHAP_R right ──────▲
//
// Every refusal carries the status for the initiator and, apart from it, the
// reason for the log. No reason holds a secret.
//
// # Caveats
//
// An account with CHAP is never entered without it, whatever the initiator
// offers. Discovery asks no proof, as initiators expect: who knows a name that
// is let in learns the names of its targets. Proof that is offered is checked.
//
// A login that names an existing session by its TSIH joins it when Policy.Join
// finds it: Session says what the target must do then. Without that hook such
// a login is refused.
package login
