import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.taosdata.jdbc.AbstractConnection;
import com.taosdata.jdbc.enums.SchemalessProtocolType;
import com.taosdata.jdbc.enums.SchemalessTimestampType;
import com.taosdata.jdbc.tmq.ConsumerRecord;
import com.taosdata.jdbc.tmq.ConsumerRecords;
import com.taosdata.jdbc.tmq.MapEnhanceDeserializer;
import com.taosdata.jdbc.tmq.TMQEnhMap;
import com.taosdata.jdbc.tmq.TaosConsumer;
import com.taosdata.jdbc.tmq.TopicPartition;
import java.sql.Connection;
import java.sql.DatabaseMetaData;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Test;

/** The unmodified taos-jdbcdriver 3.7.9 over WebSocket against the server that TDENGINE names (HOST:PORT). */
class ClientTest {
    private static final String ADDRESS = System.getenv("TDENGINE");
    private static final long T0 = 1_780_000_000_000L;

    private static Connection connect(String database) throws SQLException {
        return DriverManager.getConnection("jdbc:TAOS-WS://" + ADDRESS + "/" + database + "?user=root&password=taosdata");
    }

    private static Connection fresh(String database) throws SQLException {
        try (Connection connection = connect(""); Statement statement = connection.createStatement()) {
            statement.executeUpdate("drop topic if exists topic_" + database);
            statement.executeUpdate("drop database if exists " + database);
            statement.executeUpdate("create database " + database + " vgroups 2 wal_retention_period 3600");
        }
        return connect(database);
    }

    @Test
    void query() throws SQLException {
        try (Connection connection = fresh("java_query"); Statement statement = connection.createStatement()) {
            assertTrue(connection.isValid(5));
            statement.executeUpdate("create table t (ts timestamp, n int, d double, v varchar(20), w nchar(20), b bool)");
            assertEquals(2, statement.executeUpdate(
                "insert into t values (" + T0 + ", 1, 2.5, 'ab', '涛思', true) (" + (T0 + 1) + ", null, null, null, null, null)"));
            try (ResultSet rows = statement.executeQuery("select * from t order by ts")) {
                assertTrue(rows.next());
                assertEquals(new Timestamp(T0), rows.getTimestamp("ts"));
                assertEquals(1, rows.getInt("n"));
                assertEquals(2.5, rows.getDouble("d"));
                assertEquals("ab", rows.getString("v"));
                assertEquals("涛思", rows.getString("w"));
                assertTrue(rows.getBoolean("b"));
                assertTrue(rows.next());
                rows.getInt("n");
                assertTrue(rows.wasNull());
                assertFalse(rows.next());
            }
            SQLException error = assertThrows(SQLException.class, () -> statement.executeQuery("select * from missing"));
            assertTrue(error.getMessage().toLowerCase().contains("table"), error.getMessage());
        }
    }

    @Test
    void preparedStatement() throws SQLException {
        try (Connection connection = fresh("java_prepared"); Statement statement = connection.createStatement()) {
            statement.executeUpdate("create stable s (ts timestamp, n int, w nchar(10)) tags (g int)");
            try (PreparedStatement insert = connection.prepareStatement("insert into ? using s tags (?) values (?, ?, ?)")) {
                for (int row = 0; row < 6; row++) {
                    insert.setString(1, "t" + row % 2);
                    insert.setInt(2, row % 2);
                    insert.setTimestamp(3, new Timestamp(T0 + row));
                    insert.setInt(4, row);
                    insert.setString(5, "涛" + row);
                    insert.addBatch();
                }
                insert.executeBatch();
            }
            try (ResultSet rows = statement.executeQuery("select count(*), sum(n) from s")) {
                assertTrue(rows.next());
                assertEquals(6, rows.getLong(1));
                assertEquals(15, rows.getLong(2));
            }
            try (PreparedStatement select = connection.prepareStatement("select n from s where g = ? order by ts")) {
                select.setInt(1, 1);
                List<Integer> found = new ArrayList<>();
                try (ResultSet rows = select.executeQuery()) {
                    while (rows.next()) {
                        found.add(rows.getInt(1));
                    }
                }
                assertEquals(List.of(1, 3, 5), found);
            }
        }
    }

    @Test
    void metadata() throws SQLException {
        try (Connection connection = fresh("java_metadata"); Statement statement = connection.createStatement()) {
            statement.executeUpdate("create stable s (ts timestamp, n int) tags (g int)");
            statement.executeUpdate("create table c using s tags (1)");
            statement.executeUpdate("create table t (ts timestamp, v varchar(20))");
            DatabaseMetaData metadata = connection.getMetaData();
            assertFalse(metadata.getDatabaseProductVersion().isEmpty());
            Set<String> databases = new TreeSet<>();
            try (ResultSet rows = metadata.getCatalogs()) {
                while (rows.next()) {
                    databases.add(rows.getString("TABLE_CAT"));
                }
            }
            assertTrue(databases.contains("java_metadata"), databases.toString());
            Set<String> tables = new TreeSet<>();
            try (ResultSet rows = metadata.getTables("java_metadata", null, null, new String[] {"TABLE"})) {
                while (rows.next()) {
                    tables.add(rows.getString("TABLE_NAME"));
                }
            }
            assertTrue(tables.containsAll(Set.of("c", "t")), tables.toString());
            Set<String> columns = new TreeSet<>();
            try (ResultSet rows = metadata.getColumns("java_metadata", null, "t", null)) {
                while (rows.next()) {
                    columns.add(rows.getString("COLUMN_NAME"));
                }
            }
            assertEquals(Set.of("ts", "v"), columns);
        }
    }

    @Test
    void schemaless() throws SQLException {
        try (Connection connection = fresh("java_schemaless"); Statement statement = connection.createStatement()) {
            AbstractConnection writer = connection.unwrap(AbstractConnection.class);
            String[] lines = {"weather,city=a temp=1.5,n=3i32 " + T0, "weather,city=b,zone=z temp=2.5 " + (T0 + 1)};
            writer.write(lines, SchemalessProtocolType.LINE, SchemalessTimestampType.MILLI_SECONDS);
            try (ResultSet rows = statement.executeQuery("select city, temp from weather where zone = 'z'")) {
                assertTrue(rows.next());
                assertEquals("b", rows.getString(1));
                assertEquals(2.5, rows.getDouble(2));
                assertFalse(rows.next());
            }
        }
    }

    private static TaosConsumer<TMQEnhMap> consumer(String group) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("td.connect.type", "ws");
        properties.setProperty("bootstrap.servers", ADDRESS);
        properties.setProperty("td.connect.user", "root");
        properties.setProperty("td.connect.pass", "taosdata");
        properties.setProperty("group.id", group);
        properties.setProperty("client.id", "c");
        properties.setProperty("auto.offset.reset", "earliest");
        properties.setProperty("enable.auto.commit", "false");
        properties.setProperty("msg.with.table.name", "true");
        properties.setProperty("msg.enable.batchmeta", "1");
        properties.setProperty("value.deserializer", MapEnhanceDeserializer.class.getName());
        return new TaosConsumer<>(properties);
    }

    private static List<Integer> drain(TaosConsumer<TMQEnhMap> consumer) throws SQLException {
        List<Integer> values = new ArrayList<>();
        for (int idle = 0; idle < 8;) {
            ConsumerRecords<TMQEnhMap> records = consumer.poll(Duration.ofMillis(500));
            if (records.isEmpty()) {
                idle = values.isEmpty() ? idle + 1 : 8;
            }
            for (ConsumerRecord<TMQEnhMap> record : records) {
                Map<String, Object> row = record.value().getMap();
                values.add((Integer) row.get("n"));
            }
            consumer.commitSync();
        }
        values.sort(null);
        return values;
    }

    @Test
    void tmq() throws SQLException {
        try (Connection connection = fresh("java_tmq"); Statement statement = connection.createStatement()) {
            statement.executeUpdate("create stable s (ts timestamp, n int, v varchar(10)) tags (g int)");
            statement.executeUpdate("create topic topic_java_tmq as database java_tmq");
            for (int table = 0; table < 4; table++) {
                statement.executeUpdate("insert into t" + table + " using s tags (" + table + ") values (" + T0 + ", " + table + ", 'x')");
            }
            try (TaosConsumer<TMQEnhMap> consumer = consumer("g")) {
                consumer.subscribe(List.of("topic_java_tmq"));
                assertEquals(List.of(0, 1, 2, 3), drain(consumer));
                Set<TopicPartition> lanes = consumer.assignment();
                assertEquals(2, lanes.size());
                consumer.seekToBeginning(lanes);
                assertEquals(List.of(0, 1, 2, 3), drain(consumer));
                consumer.unsubscribe();
            }
            statement.executeUpdate("insert into t0 values (" + (T0 + 1) + ", 99, 'y')");
            try (TaosConsumer<TMQEnhMap> consumer = consumer("g")) {
                consumer.subscribe(List.of("topic_java_tmq"));
                assertEquals(List.of(99), drain(consumer));
                consumer.unsubscribe();
            }
        }
    }

    @Test
    void tmqWithMeta() throws SQLException {
        try (Connection connection = fresh("java_tmq_meta"); Statement statement = connection.createStatement()) {
            statement.executeUpdate("create topic topic_java_tmq_meta with meta as database java_tmq_meta");
            statement.executeUpdate("create stable s (ts timestamp, n int) tags (g int)");
            statement.executeUpdate("create table c using s tags (1)");
            statement.executeUpdate("alter stable s add column m int");
            statement.executeUpdate("insert into c values (" + T0 + ", 5, 6)");
            statement.executeUpdate("drop stable s");
            List<String> metas = new ArrayList<>();
            List<Object> values = new ArrayList<>();
            try (TaosConsumer<TMQEnhMap> consumer = consumer("g")) {
                consumer.subscribe(List.of("topic_java_tmq_meta"));
                for (int idle = 0; idle < 8; idle++) {
                    for (ConsumerRecord<TMQEnhMap> record : consumer.poll(Duration.ofMillis(500))) {
                        idle = 4;
                        if (record.getMeta() != null) {
                            metas.add(record.getMeta().getType() + " " + record.getMeta().getTableName());
                        } else {
                            values.add(record.value().getMap().get("m"));
                        }
                    }
                }
                consumer.unsubscribe();
            }
            // A super table's changes stand in the log of each of the two vgroups; rows of what is gone are not delivered.
            assertEquals(2, metas.stream().filter("CREATE s"::equals).count(), metas.toString());
            assertEquals(1, metas.stream().filter("CREATE c"::equals).count(), metas.toString());
            assertEquals(2, metas.stream().filter("ALTER s"::equals).count(), metas.toString());
            assertEquals(2, metas.stream().filter("DROP s"::equals).count(), metas.toString());
            assertEquals(List.of(), values);
        }
    }
}
