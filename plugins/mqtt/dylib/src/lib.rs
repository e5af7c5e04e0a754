//! MQTT topics as a shared library.

pipeline_sdk::plugin!(pipeline_mqtt::plugin, ["mqtt"]);
