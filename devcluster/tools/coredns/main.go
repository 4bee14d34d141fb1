// CoreDNS with only the plugins that a one-node development cluster needs (bind, to listen on the node's address and
// nowhere else). The stock main registers every plugin, and with them three cloud providers' SDKs, which take three
// minutes to compile.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

func main() {
	// A query passes the plugins in this order, whatever the order in the Corefile.
	dnsserver.Directives = []string{"bind", "health", "errors", "kubernetes", "forward"}
	coremain.Run()
}
