//! A link between a launcher and a host's server that a test can spoil: delayed, stalled, cut, dead. It
//! listens where the host's part of the configuration says that the server is.

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What becomes of what is sent.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    /// On the way, in each direction.
    delay: Duration,
    /// And from the server on top of that.
    delay_back: Duration,
    /// Nothing arrives as long as it is so; afterwards everything does, as with TCP.
    is_stalled: bool,
    /// Connections are closed as soon as they are made.
    is_refusing: bool,
    /// So many bytes from the server go through in each connection, and no more.
    most: Option<u64>,
    /// Nothing of the first so many connections arrives any more.
    swallowed: usize,
}

struct Shared {
    weather: Mutex<Weather>,
    changed: Condvar,
    ends: Mutex<Vec<TcpStream>>,
    /// Connections that were made.
    count: AtomicUsize,
    /// Pieces that were swallowed.
    lost: AtomicUsize,
    server: Mutex<Option<(Ipv4Addr, u16)>>,
}

/// The link. It ends with the test's process.
pub struct Proxy {
    pub address: Ipv4Addr,
    pub port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// One that leads nowhere yet.
    pub fn new() -> Proxy {
        let address = Ipv4Addr::LOCALHOST;
        let listener = TcpListener::bind((address, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            weather: Mutex::default(),
            changed: Condvar::new(),
            ends: Mutex::default(),
            count: AtomicUsize::new(0),
            lost: AtomicUsize::new(0),
            server: Mutex::default(),
        });
        let proxy = Proxy { address, port, shared: shared.clone() };
        thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let server = *shared.server.lock().unwrap();
                let is_refusing = shared.weather.lock().unwrap().is_refusing;
                let Some(server) = server.filter(|_| !is_refusing) else { continue };
                // A server that is gone refuses by itself.
                let Ok(server) = TcpStream::connect(server) else { continue };
                join(&shared, client, server);
            }
        });
        proxy
    }

    /// Where it leads.
    pub fn lead_to(&self, address: Ipv4Addr, port: u16) {
        *self.shared.server.lock().unwrap() = Some((address, port));
    }

    /// Everything takes so long, in each direction.
    pub fn delay(&self, delay: Duration) {
        self.change(|weather| weather.delay = delay);
    }

    /// Everything takes so much longer from the server than to it: clocks are measured wrongly.
    pub fn delay_back(&self, delay_back: Duration) {
        self.change(|weather| weather.delay_back = delay_back);
    }

    /// Nothing arrives any more, and nobody is told.
    pub fn stall(&self) {
        self.change(|weather| weather.is_stalled = true);
    }

    /// Everything arrives that did not.
    pub fn flow(&self) {
        self.change(|weather| {
            let Weather { delay, delay_back, swallowed, .. } = *weather;
            *weather = Weather { delay, delay_back, swallowed, ..Weather::default() };
        });
    }

    /// Of what the server says only so many bytes arrive, in each connection from now on.
    pub fn let_through(&self, bytes: u64) {
        self.change(|weather| weather.most = Some(bytes));
    }

    /// Nothing of all that are connected now arrives any more, for ever, and nobody is told, as when a
    /// firewall forgets them; those that come later are as they should be.
    pub fn swallow(&self) {
        // Relaxed, here and below: the mutex of the weather orders all.
        let count = self.shared.count.load(Ordering::Relaxed);
        self.change(|weather| weather.swallowed = count);
    }

    /// Waits until something was swallowed.
    pub fn wait_for_loss(&self) {
        let is_lost = || (self.shared.lost.load(Ordering::Relaxed) > 0).then_some(());
        super::wait_until("something that does not arrive", is_lost);
    }

    /// All connections end, and nothing arrives of those that are made; waits for one.
    pub fn cut_and_stall(&self) {
        let before = self.shared.count.load(Ordering::Relaxed);
        self.stall();
        for end in self.shared.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
        let is_made = || (self.shared.count.load(Ordering::Relaxed) > before).then_some(());
        super::wait_until("another connection", is_made);
    }

    /// All connections end, and none can be made until it [flows](Self::flow) again.
    pub fn cut(&self) {
        self.change(|weather| weather.is_refusing = true);
        for end in self.shared.ends.lock().unwrap().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Weather)) {
        change(&mut self.shared.weather.lock().unwrap());
        self.shared.changed.notify_all();
    }
}

/// A server that does not answer: nobody takes connections, and no more are let wait.
pub struct BlackHole {
    pub port: u16,
    _listener: OwnedFd,
    _waiting: Vec<OwnedFd>,
}

impl BlackHole {
    /// At 127.0.0.1.
    pub fn new() -> BlackHole {
        let socket = || {
            let flags = SocketFlags::NONBLOCK;
            socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).unwrap()
        };
        let listener = socket();
        bind(&listener, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        listen(&listener, 0).unwrap();
        let address = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
        let waiting = (0..4).map(|_| {
            let client = socket();
            // It goes on by itself, as far as it can.
            let _ = connect(&client, &address);
            client
        });
        BlackHole { port: address.port(), _waiting: waiting.collect(), _listener: listener }
    }
}

fn join(shared: &Arc<Shared>, client: TcpStream, server: TcpStream) {
    let twin = |stream: &TcpStream| stream.try_clone().unwrap();
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        shared.ends.lock().unwrap().push(twin(stream));
    }
    let number = shared.count.fetch_add(1, Ordering::Relaxed);
    let most = shared.weather.lock().unwrap().most;
    pump(shared, number, twin(&client), twin(&server), None);
    pump(shared, number, server, client, Some(most));
}

/// Two threads, so that what is on its way does not hold up what comes behind it. `back`: it comes from the
/// server, and so many bytes of it go through.
fn pump(
    shared: &Arc<Shared>,
    number: usize,
    mut from: TcpStream,
    to: TcpStream,
    back: Option<Option<u64>>,
) {
    let (outbox, inbox) = channel();
    let shared = shared.clone();
    thread::spawn(move || deliver(&shared, number, &inbox, to, back));
    thread::spawn(move || send(&mut from, &outbox));
}

fn send(from: &mut TcpStream, outbox: &Sender<(Instant, Vec<u8>)>) {
    let mut bytes = [0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        if outbox.send((Instant::now(), bytes[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn deliver(
    shared: &Shared,
    number: usize,
    inbox: &Receiver<(Instant, Vec<u8>)>,
    mut to: TcpStream,
    back: Option<Option<u64>>,
) {
    let mut left = back.flatten().unwrap_or(u64::MAX);
    while let Ok((sent, mut bytes)) = inbox.recv() {
        let weather = shared.weather.lock().unwrap();
        let weather = shared.changed.wait_while(weather, |it| it.is_stalled).unwrap();
        let due = sent + weather.delay + back.map_or(Duration::ZERO, |_| weather.delay_back);
        let is_swallowed = number < weather.swallowed;
        drop(weather);
        if is_swallowed {
            shared.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= bytes.len() as u64;
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
