//! Network interfaces of the calling thread's namespace, by netlink (`rtnetlink(7)`): pairs of
//! veth that come and go, and frames through them that nothing else adds to.

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, recv, sendto, socket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

// `include/uapi/linux/rtnetlink.h`, `if_link.h`, `netlink.h`, `veth.h`.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const REQUEST_WITH_ACK: u16 = 0x1 | 0x4;
const CREATE_ANEW: u16 = 0x200 | 0x400;
const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_GROUP: u16 = 27;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFF_UP: u32 = 1;
/// For local experiments: no protocol handler takes it, nothing answers.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

pub struct Links {
    netlink: OwnedFd,
    packet: OwnedFd,
    next_index: u32,
}

impl Links {
    /// For the network namespace that the calling thread is in, which must be its own: IPv6, which
    /// would send frames by itself, is turned off in it.
    pub fn new() -> Links {
        let no_ipv6 = std::path::Path::new("/proc/sys/net/ipv6/conf/default/disable_ipv6");
        if no_ipv6.exists() {
            std::fs::write(no_ipv6, "1").unwrap();
        }
        let netlink = socket(AddressFamily::NETLINK, SocketType::RAW, None).unwrap();
        // SAFETY: socket(2) takes numbers.
        let packet = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0) };
        assert!(packet >= 0, "{}", std::io::Error::last_os_error());
        // SAFETY: it was just opened, and nobody else knows of it.
        let packet = unsafe { OwnedFd::from_raw_fd(packet) };
        Links { netlink, packet, next_index: 1000 }
    }

    /// Makes two interfaces that are each other's end, both up; returns the index of the first.
    pub fn add_pair(&mut self, first: &str, second: &str, group: u32) -> u32 {
        let index = self.next_index;
        self.next_index += 2;
        let peer = [interface(index, 0), attribute(IFLA_IFNAME, &c_string(first))].concat();
        let data = attribute(VETH_INFO_PEER, &peer);
        let info = [attribute(IFLA_INFO_KIND, b"veth"), attribute(IFLA_INFO_DATA, &data)];
        let body = [
            interface(index + 1, IFF_UP),
            attribute(IFLA_IFNAME, &c_string(second)),
            attribute(IFLA_GROUP, &group.to_ne_bytes()),
            attribute(IFLA_LINKINFO, &info.concat()),
        ];
        self.ask(RTM_NEWLINK, CREATE_ANEW, &body.concat());
        // The one that is brought up last has its carrier at once, and can send.
        self.ask(RTM_NEWLINK, 0, &interface(index, IFF_UP));
        index
    }

    /// Removes an interface and, if it is one of a pair, the other.
    pub fn delete(&self, index: u32) {
        self.ask(RTM_DELLINK, 0, &interface(index, 0));
    }

    /// Removes all pairs of a group at once.
    pub fn delete_group(&self, group: u32) {
        let body = [interface(0, 0), attribute(IFLA_GROUP, &group.to_ne_bytes())];
        self.ask(RTM_DELLINK, 0, &body.concat());
    }

    /// Sends `count` frames of `bytes` bytes through interface `index`. They are counted, at both
    /// ends, when this returns.
    pub fn send(&self, index: u32, count: u64, bytes: u64) {
        let mut frame = vec![0; bytes as usize];
        frame[..12].copy_from_slice(&[2; 12]);
        frame[12..14].copy_from_slice(&ETHERTYPE);
        // SAFETY: zeros are a value of every field.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = index as i32;
        for _ in 0..count {
            // SAFETY: sendto(2) reads `frame` and `to`, both of the lengths that it is told.
            let sent = unsafe {
                libc::sendto(
                    self.packet.as_raw_fd(),
                    frame.as_ptr().cast(),
                    frame.len(),
                    0,
                    (&raw const to).cast(),
                    size_of_val(&to) as libc::socklen_t,
                )
            };
            assert_eq!(sent, frame.len() as isize, "{}", std::io::Error::last_os_error());
        }
    }

    /// Sends one request and waits for its answer.
    fn ask(&self, kind: u16, flags: u16, body: &[u8]) {
        let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST_WITH_ACK | flags).to_ne_bytes());
        message.extend([0; 8]);
        message.extend(body);
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.netlink, &message, SendFlags::empty(), &kernel).unwrap();
        let mut answer = vec![0; 8192];
        let (length, _) = recv(&self.netlink, &mut answer[..], RecvFlags::empty()).unwrap();
        assert!(length >= 20, "an answer of {length} bytes");
        let error = i32::from_ne_bytes(answer[16..20].try_into().unwrap());
        assert_eq!(error, 0, "{}", std::io::Error::from_raw_os_error(-error));
    }
}

/// `struct ifinfomsg` of an interface, and whether it is to be up.
fn interface(index: u32, flags: u32) -> Vec<u8> {
    [0, index, flags, IFF_UP].into_iter().flat_map(u32::to_ne_bytes).collect()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = (4 + value.len() as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn c_string(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}
