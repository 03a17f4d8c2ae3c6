"""Reads an export of OTLP from standard input with Google's protobuf and OpenTelemetry's own definitions, and
writes what it holds as JSON."""

import json
import sys

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

KINDS = {"metrics": ExportMetricsServiceRequest, "traces": ExportTraceServiceRequest}


def unknown(message):
    """Whether some of it is in no definition."""
    names = {field.number for field, _ in message.ListFields()}
    again = type(message)()
    again.CopyFrom(message)
    again.DiscardUnknownFields()
    return not names or again.SerializeToString() != message.SerializeToString()


message = KINDS[sys.argv[1]].FromString(sys.stdin.buffer.read())
if unknown(message):
    sys.exit("fields that OTLP does not have")
json.dump(MessageToDict(message), sys.stdout)
