package org.gbif.ws.discovery.conf;

import java.util.Map;

/** The payload of GBIF's services: the same name and the same properties, so the same JSON. */
public class ServiceDetails {
    public String groupId;
    public String artifactId;
    public String version;
    public Map<String, Object> serviceConfiguration;
    public String status;
    public String name;
    public String externalUrl;
    public String fullName;
}
