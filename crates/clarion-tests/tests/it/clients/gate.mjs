// A gate as those in the field are: socket.io 2 towards its users, one GateStream towards the server, opened again at once
// when it ends. A user is a room; who logs in gets what waits; a client acks by sending the message back with messageType 2.
//
//     gate.mjs SERVER PROTO SERVICE
//
// Prints one JSON line for each thing that happens.
import { createRequire } from "node:module";
import { createServer } from "node:http";
import { dirname, basename } from "node:path";

const require = createRequire(new URL("../../../js/package.json", import.meta.url));
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");
const socketio = require("socket.io");

const [server, file, service] = process.argv.slice(2);
const print = (type, more) => console.log(JSON.stringify({ type, ...more }));

const load = { keepCase: true, longs: String, enums: String, defaults: true, oneofs: true };
const definition = loader.loadSync(basename(file), { ...load, includeDirs: [dirname(file)] });
const Pusher = grpc.loadPackageDefinition(definition).message_pusher[service];
const pusher = new Pusher(server, grpc.credentials.createInsecure());
const http = createServer();
const io = socketio(http, { transports: ["websocket"], serveClient: false });
let stream;

const answer = (message) => {
  print("answer", { message });
  stream.write(message);
};

// Who is there, is asked for each message; nobody answers for those who are.
const hand = (message) => {
  if (!message.channelId) return;
  io.in(message.channelId).clients((error, sockets) => {
    if (error || sockets.length === 0) return answer({ ...message, messageType: 3 });
    io.to(message.channelId).emit("pusher", message);
  });
};

const open = () => {
  const metadata = new grpc.Metadata();
  metadata.set("group", "test-group");
  const mine = pusher.GateStream(metadata);
  stream = mine;
  let ended = false;
  const again = () => {
    if (ended) return;
    ended = true;
    print("lost");
    setImmediate(open);
  };
  mine.on("metadata", () => print("open"));
  mine.on("data", hand);
  mine.on("end", again);
  mine.on("error", again);
};

const login = (socket, user) => {
  socket.join(user, () => {
    socket.on("pusher", (message) => {
      if (message?.messageType === 2) answer({ ...message, channelId: user });
    });
    stream.write({ channelId: user, messageType: "REQUEST" });
    print("login", { user });
  });
};

io.on("connection", (socket) => {
  let user;
  socket.on("authentication", (data, reply) => {
    if (data?.strategy !== "local") {
      reply({ code: 501, message: "Invalid login", error: { info: "no such strategy" } });
      return;
    }
    user = String(data.user);
    reply({ accessToken: `token of ${user}`, user: { id: user } });
    login(socket, user);
  });
  socket.on("disconnect", () => print("logout", { user }));
});

http.listen(0, "127.0.0.1", () => {
  print("listening", { port: http.address().port });
  open();
});
