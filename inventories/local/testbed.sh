#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What the test bed says of itself, as the variable `testbed` of the group `platform` (an inventory script).
cd "$(dirname "$0")/../.." || exit 1
status=$(python3 -m tests.testbed status 2>/dev/null) || status='{"up": false}'
printf '{"platform": {"vars": {"testbed": %s}}, "_meta": {"hostvars": {}}}\n' "$status"
