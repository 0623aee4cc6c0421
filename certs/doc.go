// Package certs gives the certificates of public hosts to who serves visitors.
//
// Its duty: a TLS listener asks for the certificate of a host name and gets the
// present one. It comes from files, also after they have changed, or from somebody who
// keeps it, also after it was renewed.
//
// Its limits: it knows no mapping and opens no listener. It orders no certificates:
// certs/acme does.
package certs
