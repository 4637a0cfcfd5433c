# quickstart and test are all that one needs to type; each installs what it needs.
.PHONY: quickstart test build gen fuzz conformance bench-iscsi bench-store soak soak-kill soak-iscsi soak-switch soak-gap lint clean
