package org.apache.dubbo.registry.zookeeper;

import java.util.Map;

/** The payload of Dubbo: the same name and the same properties, so the same JSON. */
public class ZookeeperInstance {
    public String id;
    public String name;
    public Map<String, String> metadata;
}
