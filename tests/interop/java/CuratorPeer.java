import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Collection;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.state.ConnectionState;
import org.apache.curator.retry.ExponentialBackoffRetry;
import org.apache.curator.x.discovery.ServiceCache;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.curator.x.discovery.ServiceInstanceBuilder;
import org.apache.curator.x.discovery.ServiceProvider;
import org.apache.curator.x.discovery.ServiceType;
import org.apache.curator.x.discovery.UriSpec;
import org.apache.curator.x.discovery.details.JsonInstanceSerializer;
import org.apache.curator.x.discovery.details.ServiceCacheListener;

/**
 * Curator's service discovery at the end of a pipe: one JSON command a line in, one JSON answer a line out.
 *
 * <p>Arguments: the connect string, the base path, the payload class, and whether `enabled` is left out, as Curator does by
 * default ("compatible"), or written ("full").
 */
public final class CuratorPeer<T> {
    private static final long DEADLINE_SECONDS = 20;
    private static final ObjectMapper JSON = new ObjectMapper();

    /** A class of one's own, without a package. */
    public static final class Point {
        public int x;
    }

    private final JsonInstanceSerializer<T> serializer;
    private final ServiceDiscovery<T> discovery;
    private final Map<String, ServiceCache<T>> caches = new HashMap<>();
    private final Semaphore cacheChanges = new Semaphore(0);

    private CuratorPeer(CuratorFramework client, String basePath, Class<T> payloadClass, boolean compatible) {
        serializer = new JsonInstanceSerializer<>(payloadClass, compatible);
        discovery = ServiceDiscoveryBuilder.builder(payloadClass)
                .client(client)
                .basePath(basePath)
                .serializer(serializer)
                .build();
    }

    public static void main(String[] args) throws Exception {
        try (CuratorFramework client =
                CuratorFrameworkFactory.newClient(args[0], 10_000, 10_000, new ExponentialBackoffRetry(50, 10))) {
            CountDownLatch connected = new CountDownLatch(1);
            client.getConnectionStateListenable().addListener((source, state) -> connected.countDown());
            client.start();
            // A discovery that hears of the first connection deletes and creates anew whatever it registered before.
            connected.await();
            CuratorPeer<?> peer = new CuratorPeer<>(client, args[1], Class.forName(args[2]), args[3].equals("compatible"));
            peer.discovery.start();
            peer.serve();
            peer.discovery.close();
        }
    }

    private void serve() throws Exception {
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream answers = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            JsonNode answer;
            try {
                answer = JSON.createObjectNode().set("ok", answer(JSON.readTree(line)));
            } catch (Exception problem) {
                answer = JSON.createObjectNode().put("error", problem.toString());
            }
            answers.println(JSON.writeValueAsString(answer));
        }
    }

    private JsonNode answer(JsonNode command) throws Exception {
        switch (command.get("do").asText()) {
            case "register":
                discovery.registerService(built(command.get("instance")));
                return null;
            case "update":
                discovery.updateService(built(command.get("instance")));
                return null;
            case "unregister":
                discovery.unregisterService(built(command.get("instance")));
                return null;
            case "names":
                return JSON.valueToTree(new TreeSet<>(discovery.queryForNames()));
            case "list":
                return shown(discovery.queryForInstances(command.get("name").asText()));
            case "follow":
                return shown(followed(command.get("name").asText(), JSON.convertValue(command.get("ids"), TreeSet.class)));
            case "pick":
                return picked(command.get("name").asText());
            case "decode":
                return shown(serializer.deserialize(command.get("document").binaryValue()));
            default:
                throw new IllegalArgumentException(command.toString());
        }
    }

    /** What Curator's ServiceProvider gives a caller; null where it has none. */
    private JsonNode picked(String name) throws Exception {
        try (ServiceProvider<T> provider =
                discovery.serviceProviderBuilder().serviceName(name).build()) {
            provider.start();
            ServiceInstance<T> instance = provider.getInstance();
            return instance == null ? null : shown(instance);
        }
    }

    /** Curator's cache of a service, once it holds exactly these ids. */
    private Collection<ServiceInstance<T>> followed(String name, TreeSet<?> ids) throws Exception {
        ServiceCache<T> cache = caches.get(name);
        if (cache == null) {
            cache = discovery.serviceCacheBuilder().name(name).build();
            cache.addListener(new ServiceCacheListener() {
                @Override
                public void cacheChanged() {
                    cacheChanges.release();
                }

                @Override
                public void stateChanged(CuratorFramework client, ConnectionState state) {}
            });
            cache.start();
            caches.put(name, cache);
        }
        while (true) {
            Collection<ServiceInstance<T>> instances = cache.getInstances();
            TreeSet<String> held = new TreeSet<>();
            instances.forEach(instance -> held.add(instance.getId()));
            if (held.equals(ids)) {
                return instances;
            }
            if (!cacheChanges.tryAcquire(DEADLINE_SECONDS, TimeUnit.SECONDS)) {
                throw new TimeoutException("the cache holds " + held + ", not " + ids);
            }
        }
    }

    @SuppressWarnings("unchecked")
    private ServiceInstance<T> built(JsonNode fields) throws Exception {
        ServiceInstanceBuilder<T> builder = ServiceInstance.<T>builder()
                .name(fields.get("name").asText())
                .id(fields.get("id").asText())
                .address(fields.get("address").asText())
                .enabled(fields.path("enabled").asBoolean(true))
                .serviceType(ServiceType.valueOf(fields.path("serviceType").asText("DYNAMIC")))
                .payload((T) payload(fields.path("payloadClass").asText(), fields.get("payload")));
        if (fields.hasNonNull("port")) {
            builder.port(fields.get("port").asInt());
        }
        if (fields.hasNonNull("sslPort")) {
            builder.sslPort(fields.get("sslPort").asInt());
        }
        if (fields.hasNonNull("uriSpec")) {
            builder.uriSpec(new UriSpec(fields.get("uriSpec").asText()));
        }
        return builder.build();
    }

    private static Object payload(String className, JsonNode value) throws Exception {
        return className.isEmpty() ? null : JSON.convertValue(value, Class.forName(className));
    }

    private ArrayNode shown(Collection<ServiceInstance<T>> instances) {
        ArrayNode all = JSON.createArrayNode();
        instances.forEach(instance -> all.add(shown(instance)));
        return all;
    }

    private ObjectNode shown(ServiceInstance<T> instance) {
        ObjectNode fields = JSON.createObjectNode()
                .put("name", instance.getName())
                .put("id", instance.getId())
                .put("address", instance.getAddress())
                .put("port", instance.getPort())
                .put("sslPort", instance.getSslPort())
                .put("enabled", instance.isEnabled())
                .put("serviceType", String.valueOf(instance.getServiceType()))
                .put("registrationTimeUTC", instance.getRegistrationTimeUTC())
                .put("uri", instance.getUriSpec() == null ? null : instance.buildUriSpec());
        Object payload = instance.getPayload();
        fields.put("payloadClass", payload == null ? null : payload.getClass().getName());
        fields.set("payload", JSON.valueToTree(payload));
        return fields;
    }
}
