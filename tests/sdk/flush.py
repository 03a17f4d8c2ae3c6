"""Sends what a source of Segment would send for two people: host and write key are the arguments."""

import sys
from datetime import datetime, timezone

import segment.analytics as analytics

analytics.host, analytics.write_key = sys.argv[1:]
analytics.gzip = True
analytics.max_retries = 1
failures = []
analytics.on_error = lambda error, _items: failures.append(error)

context = {
    "personas": {
        "computation_class": "audience",
        "computation_id": "aud_vip",
        "computation_key": "vip",
    }
}
entered = datetime.fromtimestamp(1_750_000_000, timezone.utc)
left = datetime.fromtimestamp(1_750_000_001, timezone.utc)
for user in ["ada", "bob", "cyd"]:
    analytics.identify(user, {"vip": True}, context=context, timestamp=entered)
analytics.track("bob", "Audience Exited", {"vip": False}, context=context, timestamp=left)
analytics.flush()
analytics.shutdown()
for failure in failures:
    print(failure, file=sys.stderr)
sys.exit(bool(failures))
