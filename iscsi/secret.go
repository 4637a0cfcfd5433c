package iscsi

import "log/slog"

// Secret is a CHAP secret. Every way of printing it gives "(secret)".
type Secret string

// String hides the secret.
func (Secret) String() string { return "(secret)" }

// GoString hides the secret.
func (Secret) GoString() string { return "(secret)" }

// MarshalText hides the secret.
func (Secret) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// LogValue hides the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue("(secret)") }

// Reveal is the secret itself, for computing a response and nothing else.
func (s Secret) Reveal() string { return string(s) }
