import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.curator.framework.CuratorFramework;
import org.apache.curator.framework.CuratorFrameworkFactory;
import org.apache.curator.framework.recipes.nodes.PersistentNode;
import org.apache.curator.retry.RetryForever;
import org.apache.curator.x.discovery.ServiceDiscovery;
import org.apache.curator.x.discovery.ServiceDiscoveryBuilder;
import org.apache.curator.x.discovery.ServiceInstance;
import org.apache.zookeeper.CreateMode;

/**
 * Keeps one instance registered until SIGTERM, which withdraws it; prints a line when it is.
 *
 * <p>Arguments: "discovery" (Curator's ServiceDiscovery) or "node" (its PersistentNode), the connect string, the session
 * timeout in milliseconds, the base path, the service, the instance's address and port.
 */
public final class CuratorClaimant {
    public static void main(String[] args) throws Exception {
        String id = args[5] + ":" + args[6];
        CuratorFramework client = CuratorFrameworkFactory.newClient(
                args[1], Integer.parseInt(args[2]), Integer.parseInt(args[2]), new RetryForever(100));
        client.start();
        ServiceInstance<String> instance = ServiceInstance.<String>builder()
                .name(args[4])
                .id(id)
                .address(args[5])
                .port(Integer.parseInt(args[6]))
                .payload("eu-1")
                .build();
        AutoCloseable registered = args[0].equals("node")
                ? node(client, args[3] + "/" + args[4] + "/" + id)
                : discovery(client, args[3], instance);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                registered.close();
            } catch (Exception problem) {
                problem.printStackTrace();
            }
            client.close();
        }));
        System.out.println("registered");
        new CountDownLatch(1).await();
    }

    private static AutoCloseable discovery(CuratorFramework client, String base, ServiceInstance<String> instance)
            throws Exception {
        ServiceDiscovery<String> discovery = ServiceDiscoveryBuilder.builder(String.class)
                .client(client)
                .basePath(base)
                .thisInstance(instance)
                .build();
        discovery.start();
        return discovery;
    }

    private static AutoCloseable node(CuratorFramework client, String path) throws Exception {
        PersistentNode node =
                new PersistentNode(client, CreateMode.EPHEMERAL, false, path, "{}".getBytes(StandardCharsets.UTF_8));
        node.start();
        node.waitForInitialCreate(1, TimeUnit.HOURS);
        return node;
    }
}
