import com.taosdata.jdbc.AbstractConnection;
import com.taosdata.jdbc.TSDBDriver;
import com.taosdata.jdbc.enums.SchemalessProtocolType;
import com.taosdata.jdbc.enums.SchemalessTimestampType;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.Properties;

/**
 * taos-jdbcdriver as a writer: does what each line of standard input says, answers each with a line. See ../README.md.
 *
 * usage: Writer HOST:PORT[,HOST:PORT] DATABASE, the second address for when the first is lost
 */
class Writer {
    private static final String INSERT =
        "insert into ? using meters (place, grp) tags (?, ?) (ts, current, voltage) values (?, ?, ?)";

    /** The example of docs/replication.md. */
    private static Properties failOver(String host, String port) {
        Properties properties = new Properties();
        properties.setProperty(TSDBDriver.PROPERTY_KEY_SLAVE_CLUSTER_HOST, host);
        properties.setProperty(TSDBDriver.PROPERTY_KEY_SLAVE_CLUSTER_PORT, port);
        properties.setProperty(TSDBDriver.PROPERTY_KEY_ENABLE_AUTO_RECONNECT, "true");
        properties.setProperty(TSDBDriver.PROPERTY_KEY_RECONNECT_INTERVAL_MS, "500");
        properties.setProperty(TSDBDriver.PROPERTY_KEY_RECONNECT_RETRY_COUNT, "2");
        // A request that was under way when the connection broke waits for as long.
        properties.setProperty(TSDBDriver.PROPERTY_KEY_MESSAGE_WAIT_TIMEOUT, "5000");
        return properties;
    }

    public static void main(String[] arguments) throws SQLException, IOException {
        String[] sites = arguments[0].split("[,:]");
        String url = "jdbc:TAOS-WS://" + sites[0] + ":" + sites[1] + "/" + arguments[1] + "?user=root&password=taosdata";
        Properties properties = sites.length > 2 ? failOver(sites[2], sites[3]) : new Properties();
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (Connection connection = DriverManager.getConnection(url, properties)) {
            System.out.println("ready");
            for (String request = requests.readLine(); request != null; request = requests.readLine()) {
                try {
                    System.out.println("ok" + answer(connection, request));
                } catch (SQLException error) {
                    System.out.println("error " + error.getMessage().replace('\n', ' '));
                }
            }
        }
    }

    /** Does one request; what the answer holds beyond `ok`. */
    private static String answer(Connection connection, String request) throws SQLException {
        String[] words = request.split(" ", 2);
        switch (words[0]) {
            case "count" -> {
                try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(words[1])) {
                    rows.next();
                    return " " + rows.getLong(1);
                }
            }
            case "sql" -> {
                try (Statement statement = connection.createStatement()) {
                    statement.execute(words[1]);
                }
            }
            case "stmt2" -> {
                String[] bound = words[1].split(" ");
                prepared(connection, bound[0], Long.parseLong(bound[1]), Long.parseLong(bound[2]));
            }
            case "line" -> connection.unwrap(AbstractConnection.class)
                .write(words[1], SchemalessProtocolType.LINE, SchemalessTimestampType.MILLI_SECONDS);
            default -> throw new SQLException("unknown action " + words[0]);
        }
        return "";
    }

    private static void prepared(Connection connection, String table, long group, long time) throws SQLException {
        try (PreparedStatement insert = connection.prepareStatement(INSERT)) {
            for (int row = 0; row < 2; row++) {
                insert.setString(1, table);
                insert.setString(2, table);
                insert.setLong(3, group);
                insert.setTimestamp(4, new Timestamp(time + row));
                if (row == 0) {
                    insert.setFloat(5, 1.5f);
                    insert.setNull(6, Types.INTEGER);
                } else {
                    insert.setNull(5, Types.FLOAT);
                    insert.setInt(6, 221);
                }
                insert.addBatch();
            }
            insert.executeBatch();
        }
    }
}
