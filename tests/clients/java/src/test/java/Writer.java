import com.taosdata.jdbc.AbstractConnection;
import com.taosdata.jdbc.enums.SchemalessProtocolType;
import com.taosdata.jdbc.enums.SchemalessTimestampType;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.SQLException;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;

/**
 * taos-jdbcdriver as a writer: does what each line of standard input says, answers each with a line. See ../README.md.
 *
 * usage: Writer HOST:PORT DATABASE
 */
class Writer {
    private static final String INSERT =
        "insert into ? using meters (place, grp) tags (?, ?) (ts, current, voltage) values (?, ?, ?)";

    public static void main(String[] arguments) throws SQLException, IOException {
        String url = "jdbc:TAOS-WS://" + arguments[0] + "/" + arguments[1] + "?user=root&password=taosdata";
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        try (Connection connection = DriverManager.getConnection(url)) {
            System.out.println("ready");
            for (String request = requests.readLine(); request != null; request = requests.readLine()) {
                try {
                    write(connection, request);
                    System.out.println("ok");
                } catch (SQLException error) {
                    System.out.println("error " + error.getMessage().replace('\n', ' '));
                }
            }
        }
    }

    private static void write(Connection connection, String request) throws SQLException {
        String[] words = request.split(" ", 2);
        switch (words[0]) {
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
